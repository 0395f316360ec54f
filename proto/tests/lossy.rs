//! The session over a pipe that breaks anywhere, between daemons that crash anywhere: a node that has one disk, and
//! whose disk keeps what it synced, is never refused, never reset, and everything it wrote arrives.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use ledge_proto::fence;
use ledge_proto::ids::{Lane, Seq};
use ledge_proto::v1::snapshot::Purpose;
use proptest::prelude::*;
use world::{Edge, End, Link, Log, Told, established, key, meet};

/// Small numbers from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides.max(1)
    }
}

/// Dials again and again; each link lasts a random number of random steps, and ends with a crash of one end or none.
fn live(seed: u64) -> Result<(), String> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut edge, mut cloud) = (Edge::new(2), Log::default());
    cloud.cloud = fence::begin_leadership(cloud.cloud);
    let mut says = 0;
    let mut next = || {
        says += 1;
        says
    };
    edge.start(next());
    for nonce in 0..12 {
        for _ in 0..dice.roll(4) {
            edge.write(Lane::UpData, next());
        }
        if dice.roll(2) == 0 {
            cloud.append(&key(Lane::Down, world::CLOUD_INCARNATION), next());
        }
        let mut link = Link::dial(&edge, &cloud, nonce + 1);
        link.begin(&mut edge, &mut cloud);
        for _ in 0..dice.roll(60) {
            let steps = link.steps(&edge, &cloud);
            match steps.len() {
                0 => link.tick(),
                n => link.step(steps[dice.roll(n)], &mut edge, &mut cloud),
            }
        }
        check(&link.told, link.stored_early)?;
        let (end, lose) = (
            if dice.roll(2) == 0 { End::Edge } else { End::Cloud },
            dice.roll(2) == 0,
        );
        let crashes = dice.roll(3) > 0;
        if crashes {
            link.crash(end, lose, &mut edge, &mut cloud);
            match end {
                End::Edge => edge.start(next()),
                End::Cloud => cloud.cloud = fence::begin_leadership(cloud.cloud),
            }
        }
    }
    let told = meet(&mut edge, &mut cloud, 99);
    check(&told, 0)?;
    if !established(&told) {
        return Err(format!("no session in the end: {told:?}"));
    }
    for lane in [Lane::UpState, Lane::UpData] {
        if edge.log.end(&edge.key(lane)) != cloud.end(&edge.key(lane)) {
            return Err(format!("{lane:?} did not arrive: {told:?}"));
        }
    }
    if cloud.node.current != edge.log.edge.token || !cloud.node.confirmed {
        return Err("the ends do not agree on the token".into());
    }
    Ok(())
}

fn check(told: &[Told], stored_early: usize) -> Result<(), String> {
    if stored_early > 0 {
        return Err("a frame was stored before CONFIRM".into());
    }
    match told.iter().find(|told| {
        matches!(
            told,
            Told::Refused { .. }
                | Told::Reset { .. }
                | Told::Quarantine(_)
                | Told::Broke(..)
                | Told::CloudLost(_)
        )
    }) {
        Some(told) => Err(format!("{told:?}")),
        None => Ok(()),
    }
}

/// A hint is neither stored nor acknowledged.
fn hinted() -> Result<(), String> {
    let (mut edge, mut cloud) = (Edge::new(2), Log::default());
    edge.start(1);
    let mut link = Link::dial(&edge, &cloud, 1);
    link.run(&mut edge, &mut cloud);
    let state = edge.key(Lane::UpState);
    edge.write(Lane::UpState, 2);
    let ahead = edge.log.end(&state).unwrap();
    link.cloud
        .handle_snapshot(&state, Purpose::Hint, ahead, std::time::Duration::from_secs(101));
    let ack = link.cloud.poll_transmit(std::time::Duration::from_secs(102));
    match ack {
        None => Ok(()),
        Some(ack) => Err(format!("a hint was acknowledged: {ack:?}")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_clean_node_always_gets_through(seed: u64) {
        prop_assert_eq!(live(seed), Ok(()));
    }
}

#[test]
fn hints_are_not_acknowledged() {
    assert_eq!(hinted(), Ok(()));
}

#[test]
fn every_message_of_the_handshake_may_be_the_last() {
    // Cut after each step in turn, with what was not yet synced kept or lost at either end.
    for cut in 0..40 {
        for end in [End::Edge, End::Cloud] {
            for lose in [false, true] {
                let (mut edge, mut cloud) = (Edge::new(2), Log::default());
                edge.start(1);
                assert!(established(&meet(&mut edge, &mut cloud, 1)));
                edge.write(Lane::UpData, 2);
                let mut link = Link::dial(&edge, &cloud, 2);
                link.begin(&mut edge, &mut cloud);
                for _ in 0..cut {
                    if let Some(step) = link.steps(&edge, &cloud).first() {
                        link.step(*step, &mut edge, &mut cloud);
                    }
                }
                assert_eq!(check(&link.told, link.stored_early), Ok(()));
                link.crash(end, lose, &mut edge, &mut cloud);
                edge.start(3);
                let told = meet(&mut edge, &mut cloud, 3);
                assert_eq!(check(&told, 0), Ok(()), "cut {cut} {end:?} {lose}");
                assert!(established(&told));
                assert_eq!(cloud.end(&edge.key(Lane::UpData)).unwrap().position.seq, Seq(1));
            }
        }
    }
}

#[cfg(feature = "mutants")]
mod teeth {
    //! Each planted bug that a live session can show, shown.

    use super::*;
    use ledge_proto::mutants;

    /// A copy of the disk that lost nothing, and one that went another way with the latest token.
    fn copies() -> Result<(), String> {
        let (mut edge, mut cloud) = (Edge::new(2), Log::default());
        edge.start(1);
        edge.write(Lane::UpData, 1);
        meet(&mut edge, &mut cloud, 1);
        let mut copy = edge.clone();
        let mut forked = edge.clone();
        meet(&mut edge, &mut cloud, 2);
        copy.log.reopen();
        let mut there = cloud.clone();
        if established(&meet(&mut copy, &mut there, 3)) {
            return Err("a copy was let in".into());
        }
        edge.write(Lane::UpData, 2);
        meet(&mut edge, &mut cloud, 3);
        forked.write(Lane::UpData, 3);
        forked.log.edge = edge.log.edge.clone();
        cloud.other_session = true;
        if established(&meet(&mut forked, &mut cloud, 4)) {
            return Err("a fork was let in".into());
        }
        Ok(())
    }

    fn lower_epoch() -> Result<(), String> {
        let (mut edge, mut cloud) = (Edge::new(2), Log::default());
        edge.start(1);
        cloud.cloud.cloud_epoch = 2;
        meet(&mut edge, &mut cloud, 1);
        let mut forgetful = edge.clone();
        forgetful.log.edge.max_cloud_epoch_seen = 0;
        cloud.cloud.cloud_epoch = 1;
        let mut link = Link::dial(&forgetful, &cloud, 2);
        link.run(&mut edge, &mut cloud);
        if established(&link.told) {
            Err("an older cloud was followed".into())
        } else {
            Ok(())
        }
    }

    /// Records of a new epoch that reuse numbers are not taken for ones that were folded before.
    fn new_epoch_is_folded() -> Result<(), String> {
        use ledge_proto::fold::State;
        use ledge_proto::frame::{FrameWriter, push_record};
        use ledge_proto::ids::{Epoch, Position};
        let stream = Edge::new(2).key(Lane::UpState);
        let mut payload = Vec::new();
        push_record(&mut payload, &Default::default());
        let (mut state, mut first) = (State::new(), FrameWriter::new(stream.clone()));
        state.apply_frame(&first.frame(1, &payload).unwrap()).unwrap();
        let begun = ledge_proto::ids::Mark {
            position: Position {
                epoch: Epoch(2),
                seq: Seq(0),
            },
            chain: stream.genesis_chain(),
        };
        let next = FrameWriter::resume(stream, begun).frame(1, &payload).unwrap();
        match state.apply_frame(&next) {
            Err(_) => Ok(()), // Its beginning is missing: that is told.
            Ok(()) => Err("a record of a new epoch was passed over".into()),
        }
    }

    fn all() -> Result<(), String> {
        new_epoch_is_folded()?;
        copies()?;
        lower_epoch()?;
        hinted()?;
        (0..2000).try_for_each(live)
    }

    #[test]
    fn every_planted_bug_is_found() {
        // One test, one thread: the planted bug is the process's.
        assert_eq!(all(), Ok(()));
        for name in [
            "accept-lower-epoch",
            "ratchet-not-persisted",
            "accept-stale-token",
            "skip-chain-check",
            "hint-moves-ack",
            "archived-ahead-of-durable",
            "accept-before-confirm",
            "dedupe-by-seq-only",
        ] {
            mutants::activate(Some(name));
            let found = all();
            mutants::activate(None);
            assert!(found.is_err(), "{name} was not found");
        }
    }
}
