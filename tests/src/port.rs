//! Ports of loopback that nobody else gets.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, SocketAddrAny, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};

/// A port for a server that is started, killed and started again. It is bound here, and not listened at: the kernel gives it to nobody
/// else, who connects is refused, and a server, which says `SO_REUSEADDR` as all do, may bind it as well and listen.
#[derive(Debug)]
pub struct Port {
    _bound: OwnedFd,
    number: u16,
}

impl Port {
    pub fn new() -> Port {
        let bound = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let bound = bound.expect("a socket");
        sockopt::set_socket_reuseaddr(&bound, true).expect("SO_REUSEADDR");
        bind(&bound, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("a port of loopback");
        let address: SocketAddrAny = getsockname(&bound).expect("its address");
        let number = SocketAddrV4::try_from(address).expect("of IPv4").port();
        Port { _bound: bound, number }
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    /// As settings name it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

impl Default for Port {
    fn default() -> Port {
        Port::new()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_server_may_come_and_go_at_it() {
        let port = Port::new();
        let connect = || TcpStream::connect(port.address());
        for _ in 0..3 {
            assert_eq!(connect().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
            let server = TcpListener::bind(port.address()).unwrap();
            let client = connect().unwrap();
            // The server ends first, as one that is killed: its side of the connection lingers.
            drop((server.accept().unwrap(), server));
            drop(client);
        }
    }
}
