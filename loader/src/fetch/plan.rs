//! Which ranges of which shards are asked for. A pure function.
//!
//! Ranges that are near each other become one request: a gap is asked for too if it is shorter than what a request costs and half of
//! the request is wanted, or if most of it is wanted anyway.

use std::ops::Range;

/// When two ranges are one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// About what moves in the time of a first byte (30 ms) over one of many connections (10 MB/s).
    pub short_gap_bytes_max: u64,
    /// A short gap is asked for if of the request at least so many percent are wanted: bytes of all connections share a link.
    pub short_gap_percent_min: u64,
    /// The same for a longer one.
    pub wanted_percent_min: u64,
    /// No request becomes longer by joining.
    pub request_bytes_max: u64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            short_gap_bytes_max: 256 << 10,
            short_gap_percent_min: 50,
            wanted_percent_min: 75,
            request_bytes_max: 8 << 20,
        }
    }
}

/// A range that an item needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub item: usize,
    pub shard: u32,
    pub range: Range<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub shard: u32,
    pub range: Range<u64>,
}

/// The requests, in the order of the first item that needs each, and for each item those it needs.
#[derive(Debug, Default)]
pub struct Plan {
    pub requests: Vec<Request>,
    pub of_item: Vec<Vec<usize>>,
}

/// `items`: how many there are; one that needs nothing has no request.
pub fn plan(items: usize, mut needs: Vec<Need>, rules: &Rules) -> Plan {
    needs.sort_by_key(|need| (need.shard, need.range.start, need.range.end));
    let mut joined: Vec<(Request, Vec<usize>)> = Vec::new();
    let mut wanted = 0;
    for need in needs {
        let len = need.range.end - need.range.start;
        if let Some((last, of)) = joined.last_mut()
            && last.shard == need.shard
        {
            let end = last.range.end.max(need.range.end);
            let gap = need.range.start.saturating_sub(last.range.end);
            let more = need.range.end.saturating_sub(last.range.end.max(need.range.start));
            let whole = end - last.range.start;
            let inside = end == last.range.end;
            let percent_min = match gap {
                0 => 0,
                gap if gap <= rules.short_gap_bytes_max => rules.short_gap_percent_min,
                _ => rules.wanted_percent_min,
            };
            let near = (wanted + more) * 100 >= whole * percent_min;
            if inside || (near && whole <= rules.request_bytes_max) {
                last.range.end = end;
                wanted += more;
                of.push(need.item);
                continue;
            }
        }
        wanted = len;
        joined.push((Request { shard: need.shard, range: need.range }, vec![need.item]));
    }
    joined.sort_by_key(|(_, of)| of.iter().min().copied());
    let mut plan = Plan { requests: Vec::with_capacity(joined.len()), of_item: vec![Vec::new(); items] };
    for (at, (request, mut of)) in joined.into_iter().enumerate() {
        plan.requests.push(request);
        of.sort_unstable();
        of.dedup();
        for item in of {
            plan.of_item[item].push(at);
        }
    }
    plan
}

impl Plan {
    /// Of each request the first item that needs it.
    pub fn first_items(&self) -> Vec<usize> {
        let mut first = vec![usize::MAX; self.requests.len()];
        for (item, requests) in self.of_item.iter().enumerate() {
            for &request in requests {
                first[request] = first[request].min(item);
            }
        }
        first
    }

    /// Of each request, whether one of the first `own` items needs it.
    pub fn is_for(&self, own: usize) -> Vec<bool> {
        self.first_items().into_iter().map(|first| first < own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn need(item: usize, shard: u32, range: Range<u64>) -> Need {
        Need { item, shard, range }
    }

    #[test]
    fn near_ranges_are_one_request_and_far_ones_are_not() {
        let rules = Rules {
            short_gap_bytes_max: 10,
            short_gap_percent_min: 50,
            wanted_percent_min: 75,
            request_bytes_max: 1000,
        };
        let needs = vec![
            need(0, 1, 500..600), // 100 behind item 1's 300: 80 % are wanted
            need(1, 1, 100..400),
            need(2, 1, 700..720), // another 100 behind: 420 of 620 are less than 75 %
            need(3, 0, 700..720), // another shard
            need(4, 1, 725..900),
            need(5, 1, 120..130), // within item 1
        ];
        let plan = plan(7, needs, &rules);
        let request = |shard, range| Request { shard, range };
        assert_eq!(plan.requests, [request(1, 100..600), request(1, 700..900), request(0, 700..720)]);
        assert_eq!(plan.of_item, [vec![0], vec![0], vec![1], vec![2], vec![1], vec![0], vec![]]);
        assert_eq!((plan.first_items(), plan.is_for(3)), (vec![0, 2, 3], vec![true, true, false]));
    }

    #[test]
    fn many_short_gaps_do_not_make_a_request_of_gaps() {
        let rules = Rules { short_gap_bytes_max: 100, short_gap_percent_min: 50, ..Rules::default() };
        let sparse = (0..20).map(|n| need(n as usize, 0, n * 100..n * 100 + 10)).collect();
        assert_eq!(plan(20, sparse, &rules).requests.len(), 20);
        let dense = (0..20).map(|n| need(n as usize, 0, n * 100..n * 100 + 60)).collect();
        assert_eq!(plan(20, dense, &rules).requests.len(), 1);
    }

    #[test]
    fn joining_ends_at_the_bound_and_one_longer_range_stays_whole() {
        let rules = Rules {
            short_gap_bytes_max: 10,
            short_gap_percent_min: 0,
            wanted_percent_min: 75,
            request_bytes_max: 100,
        };
        let plan = plan(3, vec![need(0, 0, 0..60), need(1, 0, 60..120), need(2, 0, 120..1000)], &rules);
        assert_eq!(
            plan.requests.iter().map(|r| r.range.clone()).collect::<Vec<_>>(),
            [0..60, 60..120, 120..1000]
        );
    }

    proptest! {
        /// Each range lies within one of its item's requests, and no more is asked for than the rules allow.
        #[test]
        fn every_need_is_met(
            needs in proptest::collection::vec((0_usize..20, 0_u32..3, 0_u64..5000, 1_u64..400), 0..60),
            short_gap_bytes_max in 0_u64..200, short_gap_percent_min in 0_u64..101,
            wanted_percent_min in 0_u64..101, request_bytes_max in 100_u64..3000,
        ) {
            let rules = Rules { short_gap_bytes_max, short_gap_percent_min, wanted_percent_min, request_bytes_max };
            let needs: Vec<Need> =
                needs.into_iter().map(|(item, shard, start, len)| need(item, shard, start..start + len)).collect();
            let plan = plan(20, needs.clone(), &rules);
            for need in &needs {
                let met = plan.of_item[need.item].iter().map(|&at| &plan.requests[at]).any(|r| {
                    r.shard == need.shard && r.range.start <= need.range.start && r.range.end >= need.range.end
                });
                prop_assert!(met, "{:?}", need);
            }
            for request in &plan.requests {
                let len = request.range.end - request.range.start;
                prop_assert!(len <= request_bytes_max || needs.iter().any(|n| n.range == request.range));
            }
        }
    }
}
