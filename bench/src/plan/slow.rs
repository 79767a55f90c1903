//! Cold reads over a store that is slow: a proxy adds 30 ms to each request, and 2 s to one in a hundred.

use anyhow::{Context, Result, ensure};

use super::cold::{EPOCH, READ_S, THREADS, place_of};
use super::{Round, Who};
use crate::process::drop_caches;
use crate::proxy::{Delays, Proxy};
use crate::report::{Aim, RAW_GETS, Row};
use crate::stats::percentile;
use crate::stop;
use crate::system::{GRANARY, System};
use crate::work::once::{Pass, shuffled_pass};

const FIRST_BYTE_MS: u64 = 30;
const STALL_MS: u64 = 2000;
const STALL_PERCENT: f64 = 1.0;

impl Round<'_> {
    pub(super) fn slow(&mut self) -> Result<()> {
        // What raw GETs reach is taken without stalls: of so few requests, one more or less would decide it.
        let proxy = self.proxy(0.0)?;
        let raw = self.raw_gets(Some(&proxy.url()))?;
        drop(proxy);
        self.report.add(&self.slow_row("MB/s", "", Aim::RatioMin(0.7)), RAW_GETS, raw.mb_rate());

        let (seed, limits, made) = (self.plan.seed, self.limits(READ_S), self.made.clone());
        let mut passes = Vec::new();
        let proxies = self.systems.peers.len() + 1;
        let mut proxies = (0..proxies).map(|_| self.proxy(STALL_PERCENT)).collect::<Result<Vec<_>>>()?;
        for system in self.systems.of(Who::Stored, self.number) {
            let Some(proxy) = proxies.pop() else { break };
            let name = system.name();
            let count = made.get(&(name, EPOCH.name)).copied().unwrap_or(0);
            let pass = slow_pass(system, &proxy, |system| {
                shuffled_pass(&place_of(system), EPOCH, count, THREADS, seed, limits, None)
            });
            passes.push((name, pass.with_context(|| format!("slow: {name}"))?));
        }
        for (name, pass) in &passes {
            self.add_slow(name, pass, "")?;
        }

        if !self.systems.granary.hedge(false)? {
            self.report.note("slow: this Granary has no setting that switches hedging off.".into());
            return Ok(());
        }
        let proxy = self.proxy(STALL_PERCENT)?;
        let (granary, count) = (&mut self.systems.granary, made[&(GRANARY, EPOCH.name)]);
        let pass = slow_pass(granary, &proxy, |system| {
            shuffled_pass(system.root(), EPOCH, count, THREADS, seed, limits, None)
        });
        let pass = pass.context("slow: without hedging")?;
        granary.hedge(true)?;
        granary.forget(None)?;
        self.add_slow(GRANARY, &pass, ", hedging off")
    }

    fn proxy(&self, stall_percent: f64) -> Result<Proxy> {
        let bucket = self.plan.target.bucket().context("a proxy needs an S3 store before it")?;
        let delays = Delays::new(FIRST_BYTE_MS, stall_percent, STALL_MS)?;
        let seed = self.plan.seed + u64::from(self.number);
        Proxy::start(([127, 0, 0, 1], 0).into(), bucket.endpoint()?, delays, seed)
    }

    fn slow_row(&self, unit: &'static str, what: &str, aim: Aim) -> Row {
        let slow =
            format!("{FIRST_BYTE_MS} ms to the first byte, {STALL_PERCENT} % of requests {STALL_MS} ms");
        let title = format!("cold, {slow}: {}{what}", self.epoch_title());
        Row::new(title, unit, RAW_GETS, aim)
    }

    fn add_slow(&mut self, name: &'static str, pass: &Pass, how: &str) -> Result<()> {
        let aim = if how.is_empty() { Aim::RatioMin(0.7) } else { Aim::None };
        self.report.add(&self.slow_row("MB/s", how, aim), name, pass.outcome.mb_rate());
        for (what, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let seconds = percentile(&pass.latencies_s, share).context("no file was read")?;
            let title = format!("the same{how}: {what} of a file's read");
            self.report.add(&Row::new(title, "ms", RAW_GETS, Aim::None), name, seconds * 1e3);
        }
        Ok(())
    }
}

/// One pass with nothing on the node, through the proxy; afterwards the store is reached as always.
fn slow_pass(
    system: &mut dyn System,
    proxy: &Proxy,
    pass: impl FnOnce(&dyn System) -> Result<Pass>,
) -> Result<Pass> {
    stop::check()?;
    system.forget(Some(&proxy.url()))?;
    drop_caches()?;
    let pass = pass(system)?;
    let totals = proxy.totals();
    ensure!(totals.requests > 0, "{} went past the proxy to the store", system.name());
    eprintln!(
        "  {}: {} requests through the proxy, {} stalled",
        system.name(),
        totals.requests,
        totals.stalled
    );
    system.forget(None)?;
    Ok(pass)
}
