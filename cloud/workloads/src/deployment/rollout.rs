//! How many replicas each ReplicaSet of a Deployment is to have: arithmetic, nothing else.

use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What a Deployment allows on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Replicas in the end.
    pub wanted: i32,
    /// So many more may be there meanwhile.
    pub surge: i32,
    /// So many fewer may be available meanwhile.
    pub unavailable: i32,
}

/// What a ReplicaSet has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Replicas it is to have.
    pub replicas: i32,
    /// Those that are available.
    pub available: i32,
}

impl Limits {
    /// Those of a Deployment. A rollout that could neither add nor take away may take away one.
    pub fn of(spec: &DeploymentSpec) -> Limits {
        let wanted = spec.replicas.unwrap_or(1).max(0);
        let strategy = spec.strategy.as_ref();
        if recreates(spec) {
            return Limits {
                wanted,
                surge: 0,
                unavailable: 0,
            };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let surge = share(surge.unwrap_or(&quarter), wanted, true);
        let unavailable = share(unavailable.unwrap_or(&quarter), wanted, false);
        let unavailable = if surge == 0 && unavailable == 0 {
            1
        } else {
            unavailable
        };
        Limits {
            wanted,
            surge,
            unavailable: unavailable.min(wanted),
        }
    }

    /// Replicas that may be there at most.
    pub fn most(self) -> i32 {
        self.wanted.saturating_add(self.surge)
    }

    fn least_available(self) -> i32 {
        self.wanted - self.unavailable
    }
}

/// Whether all old pods go before the first new one comes.
pub fn recreates(spec: &DeploymentSpec) -> bool {
    let strategy = spec
        .strategy
        .as_ref()
        .and_then(|strategy| strategy.type_.as_deref());
    strategy == Some("Recreate")
}

/// A number, or a percentage of `of`, never negative. What cannot be understood is 0: the API lets nothing like that pass.
pub fn share(value: &IntOrString, of: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: Option<i64> = text.strip_suffix('%').and_then(|digits| digits.parse().ok());
            let hundredfold = percent.unwrap_or(0).clamp(0, 1_000_000) * i64::from(of.max(0));
            let share = if round_up {
                (hundredfold + 99) / 100
            } else {
                hundredfold / 100
            };
            i32::try_from(share).unwrap_or(i32::MAX)
        }
    }
}

/// The size of the new set when all sets together have `total` replicas: what the limits allow, or what is wanted.
pub fn grown(limits: Limits, new: i32, total: i32) -> i32 {
    if new >= limits.wanted {
        return limits.wanted;
    }
    let room = limits.most().saturating_sub(total).max(0);
    new.saturating_add(room).min(limits.wanted)
}

/// The sizes of the old sets, oldest first, as far down as availability allows: first what is not available anyway.
pub fn shrunk(limits: Limits, new: Size, old: &[Size]) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(|size| size.replicas).collect();
    let total = new.replicas + sizes.iter().sum::<i32>();
    let mut unhealthy = total - limits.least_available() - (new.replicas - new.available).max(0);
    if unhealthy <= 0 {
        return sizes;
    }
    for (size, set) in sizes.iter_mut().zip(old) {
        let cut = (*size - set.available).clamp(0, unhealthy);
        *size -= cut;
        unhealthy -= cut;
    }
    let available = new.available + old.iter().map(|set| set.available).sum::<i32>();
    let mut spare = (available - limits.least_available()).max(0);
    for size in &mut sizes {
        let cut = (*size).min(spare);
        *size -= cut;
        spare -= cut;
    }
    sizes
}

/// A set that takes part in scaling by proportion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Replicas it is to have, more than none.
    pub replicas: i32,
    /// Most replicas its Deployment allowed when this size was chosen.
    pub most_then: i32,
}

/// The sizes of several sets in the middle of a rollout when the wanted number changes: each gets its share of what is to
/// be added or taken away. `parts` are sorted, the largest first; the first gets what rounding leaves.
pub fn scaled(limits: Limits, parts: &[Part]) -> Vec<i32> {
    let total: i32 = parts.iter().map(|part| part.replicas).sum();
    let allowed = if limits.wanted > 0 { limits.most() } else { 0 };
    let to_add = allowed - total;
    let mut sizes: Vec<i32> = parts.iter().map(|part| part.replicas).collect();
    if to_add == 0 {
        return sizes;
    }
    let mut added = 0;
    for (size, part) in sizes.iter_mut().zip(parts) {
        let left = to_add - added;
        let fraction = fraction(limits, *part);
        let share = if to_add > 0 {
            fraction.clamp(0, left)
        } else {
            fraction.clamp(left, 0)
        };
        *size += share;
        added += share;
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

/// What a set grows or shrinks by so that its part of all stays what it was.
fn fraction(limits: Limits, part: Part) -> i32 {
    if limits.wanted == 0 {
        return -part.replicas;
    }
    let most_then = i64::from(part.most_then.max(1));
    let scaled = i64::from(part.replicas) * i64::from(limits.most());
    let rounded = (2 * scaled + most_then) / (2 * most_then);
    i32::try_from(rounded).unwrap_or(i32::MAX) - part.replicas
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> impl Strategy<Value = Limits> {
        (0..40i32, 0..10i32, 0..10i32).prop_map(|(wanted, surge, unavailable)| {
            let unavailable = if surge == 0 && unavailable == 0 {
                1
            } else {
                unavailable
            };
            Limits {
                wanted,
                surge,
                unavailable: unavailable.min(wanted),
            }
        })
    }

    #[test]
    fn percentages_round_as_upstream() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        assert_eq!(share(&percent("25%"), 10, true), 3);
        assert_eq!(share(&percent("25%"), 10, false), 2);
        assert_eq!(share(&percent("nonsense"), 10, false), 0);
        assert_eq!(share(&IntOrString::Int(-3), 10, false), 0);
        assert_eq!(share(&percent("99999999999%"), i32::MAX, true), i32::MAX);
    }

    proptest! {
        /// Pods become available or break at any time; whatever happens, the limits hold, and once all pods that run are
        /// available, the rollout ends.
        #[test]
        fn a_rollout_keeps_its_limits_and_ends(
            limits in limits(),
            events in prop::collection::vec((any::<bool>(), 0..50i32), 0..40),
        ) {
            let mut old = vec![Size { replicas: limits.wanted, available: limits.wanted }];
            let mut new = Size { replicas: 0, available: 0 };
            let step = |old: &mut Vec<Size>, new: &mut Size| {
                let total = new.replicas + old.iter().map(|set| set.replicas).sum::<i32>();
                let grown = grown(limits, new.replicas, total);
                prop_assert!(grown >= new.replicas);
                if grown != new.replicas {
                    new.replicas = grown;
                    prop_assert!(total.max(limits.most()) >= new.replicas + old[0].replicas);
                    return Ok(());
                }
                let available = |old: &[Size], new: &Size| new.available + old[0].available;
                let before = available(old, new);
                let sizes = shrunk(limits, *new, old);
                // The ReplicaSet removes what is not available first.
                for (set, size) in old.iter_mut().zip(sizes) {
                    prop_assert!((0..=set.replicas).contains(&size));
                    set.replicas = size;
                    set.available = set.available.min(size);
                }
                let after = available(old, new);
                prop_assert!(after == before || after >= limits.wanted - limits.unavailable);
                Ok(())
            };
            for (breaks, which) in events {
                step(&mut old, &mut new)?;
                if breaks {
                    new.available = new.available.min(which);
                } else {
                    new.available = new.replicas.min(new.available + which);
                }
            }
            for _ in 0..200 {
                new.available = new.replicas;
                step(&mut old, &mut new)?;
            }
            prop_assert_eq!(new.replicas, limits.wanted);
            prop_assert_eq!(old[0].replicas, 0);
        }

        #[test]
        fn scaling_shares_exactly_what_there_is(
            limits in limits(),
            parts in prop::collection::vec((1..30i32, 1..60i32), 1..5),
        ) {
            let mut parts: Vec<Part> = parts
                .into_iter()
                .map(|(replicas, most_then)| Part { replicas, most_then })
                .collect();
            parts.sort_by_key(|part| -part.replicas);
            let before: i32 = parts.iter().map(|part| part.replicas).sum();
            let sizes = scaled(limits, &parts);
            prop_assert!(sizes.iter().all(|size| *size >= 0));
            let after: i32 = sizes.iter().sum();
            let allowed = if limits.wanted > 0 { limits.most() } else { 0 };
            // Growing gives everything; shrinking may leave some where the first had too few to give.
            if allowed >= before {
                prop_assert_eq!(after, allowed);
            } else {
                prop_assert!(after >= allowed && after <= before);
            }
        }
    }
}
