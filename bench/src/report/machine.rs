//! The machine that the figures are of.

pub fn describe() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = info
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    format!("{cpus} CPUs, {} GiB memory, Linux {kernel}", kib.unwrap_or(0) >> 20)
}
