//! Peers over loopback: a tree's staged bytes, tickets, and nodes that are gone.
