//! Messages of any content.

use proptest::prelude::*;

use super::*;

fn any_message() -> impl Strategy<Value = Message> {
    let bytes = prop::collection::vec(any::<u8>(), 0..20);
    let ids = prop_oneof![Just(EDGE.0.to_vec()), Just(CLOUD.0.to_vec()), bytes.clone()];
    let names = prop_oneof![Just("edge-1".to_owned()), "[a-z0-9/-]{0,12}"];
    (0u8..9, names, 0u32..6, 0u64..300, bytes, ids).prop_map(|(kind, scope, n, m, bytes, incarnation)| {
        let chain = if n % 2 == 0 { vec![3; 16] } else { bytes.clone() };
        let mark = v1::Mark {
            epoch: n,
            seq: m,
            chain: chain.clone(),
        };
        let token = v1::SessionToken {
            counter: m % 4,
            nonce: if m % 4 == 0 { Vec::new() } else { vec![4; 16] },
        };
        let acknowledged = v1::Acknowledged {
            durable: Some(mark.clone()),
            archived_seq: m,
            receipt: bytes.clone(),
            ..Default::default()
        };
        let state = v1::StreamState {
            scope: scope.clone(),
            lane: n,
            incarnation: incarnation.clone(),
            epoch: n,
            seq: m,
            chain: chain.clone(),
            opened: Some(mark),
            acknowledged: Some(acknowledged),
            action: i32::try_from(n).unwrap(),
            reset_epoch: n / 2,
            ..Default::default()
        };
        match kind {
            0 => Message::Hello(v1::Hello {
                version: PROTOCOL_VERSION,
                cluster: CLUSTER.0.to_vec(),
                node: "edge-1".into(),
                incarnation,
                streams: vec![state],
                token: Some(token),
                ..Default::default()
            }),
            1 => Message::Welcome(v1::Welcome {
                version: PROTOCOL_VERSION,
                streams: vec![state],
                heartbeat_ms: m * 100,
                heartbeat_idle_ms: m * 100,
                token: Some(token),
                ..Default::default()
            }),
            2 => Message::Refuse(v1::Refuse {
                reason: scope,
                message: String::new(),
            }),
            3 => Message::Ack(v1::Ack {
                scope,
                lane: n,
                incarnation,
                epoch: n,
                durable_seq: m,
                durable_chain: chain,
                archived_seq: m / 2,
                receipt: bytes,
            }),
            4 => Message::Ping(v1::Ping {
                heads: vec![v1::LaneHead {
                    scope,
                    lane: n,
                    seq: m,
                    unreadable: 2,
                    oldest_unacked_ms: 0,
                }],
                heartbeat_ms: m * 10,
            }),
            5 => Message::Confirm(v1::Confirm { token: Some(token) }),
            6 => Message::Nack(v1::Nack {
                scope,
                lane: n,
                incarnation,
                seq: m,
                reason: "x".repeat(9000),
            }),
            7 => Message::Fetch(v1::Fetch {
                id: m,
                scope,
                lane: n,
                incarnation,
                first_seq: m / 2,
                last_seq: m,
            }),
            _ => Message::NotHeld(v1::NotHeld { id: m }),
        }
    })
}

proptest! {
    #[test]
    fn no_sequence_of_messages_panics(messages in prop::collection::vec((any::<bool>(), any_message()), 1..20)) {
        let mut pair = Pair::new(Marks::default(), Marks::default());
        for (to_edge, message) in messages {
            let (session, log) =
                if to_edge { (&mut pair.edge, &pair.edge_log) } else { (&mut pair.cloud, &pair.cloud_log) };
            let _ = session.handle_message(message, log, pair.now);
            while let Some(event) = session.poll_event() {
                match event {
                    Event::Persist(update) => {
                        log.keep(update);
                        let _ = session.handle_persisted(log, pair.now);
                    }
                    Event::Reset { key, .. } => {
                        let _ = session.handle_reset_done(&[key], log, pair.now);
                    }
                    _ => {}
                }
            }
            while session.poll_transmit(pair.now).is_some() {}
        }
    }
}

proptest! {
    #[test]
    fn every_message_survives_the_wire(message in any_message()) {
        let bytes = wire::encode(message.clone()).unwrap();
        prop_assert_eq!(wire::decode(&bytes[4..]).unwrap(), message);
    }
}
