//! What is compared with what, and for how long.

use ledge_cloud_testing::place::Place;

use super::*;

struct Cloud {
    _place: Place,
    told: Told,
    node: Scope,
    sync: Comparing,
}

impl Cloud {
    fn new() -> Cloud {
        let place = Place::without_api();
        let told = Told {
            log: place.log().clone(),
            projection: place.projection().clone(),
            appends: Default::default(),
        };
        Cloud {
            told,
            node: Scope::node("edge-1").unwrap(),
            sync: Comparing::default(),
            _place: place,
        }
    }

    async fn tell(&mut self, value: &str) {
        let object = v1::KubeObject {
            json: value.to_owned().into(),
            ..Default::default()
        };
        let record = record("/configmaps/a/b".to_owned(), &Payload::KubeObject(object));
        self.told.tell(self.node.clone(), vec![record]).await.unwrap();
        self.sync.keep(self.told.view());
    }

    /// What the node would say now.
    fn applied(&self) -> v1::DownApplied {
        let view = self.told.view();
        let folded = folded_stream(&view, &StreamId::new(self.node.clone(), Lane::Down)).unwrap();
        v1::DownApplied {
            node: folded.map(|folded| v1::StreamPosition {
                epoch: folded.epoch,
                seq: folded.seq,
            }),
            node_hash: lane_hash(&view, &self.node, Lane::Down).unwrap().to_vec(),
            ..Default::default()
        }
    }

    /// The node says so; whether it is ordered to repair itself.
    async fn says(&mut self, applied: &v1::DownApplied) -> bool {
        let stream = StreamId::new(self.node.clone(), Lane::UpState);
        let said = record("edge-1".to_owned(), &Payload::DownApplied(applied.clone()));
        self.told.append(stream, vec![said]).await.unwrap();
        let orders = |cloud: &Cloud| -> Option<v1::Repair> {
            Told::entry(&cloud.told.view(), &cloud.node, Table::Repairs, KEY).unwrap()
        };
        let before = orders(self);
        self.sync.check(&self.told, &self.node).await.unwrap();
        self.sync.keep(self.told.view());
        orders(self) != before
    }
}

fn wrong(mut applied: v1::DownApplied) -> v1::DownApplied {
    applied.node_hash = vec![0; 32];
    applied
}

#[tokio::test]
async fn a_node_is_compared_where_it_was_though_it_was_told_more_meanwhile() {
    let mut cloud = Cloud::new();
    cloud.tell("1").await;
    let then = cloud.applied();
    cloud.tell("2").await;
    assert_ne!(cloud.applied(), then);
    assert!(!cloud.says(&then).await);
    assert!(cloud.says(&wrong(then.clone())).await);
    // Not known any more.
    cloud.sync.kept.clear();
    assert!(!cloud.says(&wrong(then)).await);
}

#[tokio::test]
async fn a_node_that_differs_however_often_it_folds_again_is_left_alone_until_it_agrees() {
    let mut cloud = Cloud::new();
    cloud.tell("1").await;
    for _ in 0..ORDERS_MAX {
        let applied = wrong(cloud.applied());
        assert!(cloud.says(&applied).await);
    }
    let applied = wrong(cloud.applied());
    assert!(!cloud.says(&applied).await);
    let right = cloud.applied();
    assert!(!cloud.says(&right).await);
    cloud.tell("2").await;
    let applied = wrong(cloud.applied());
    assert!(cloud.says(&applied).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_kept_for_a_moment_and_is_bounded() {
    let cloud = Cloud::new();
    let mut sync = Comparing::default();
    for _ in 0..KEPT_MAX + 9 {
        sync.keep(cloud.told.view());
    }
    assert_eq!(sync.kept.len(), KEPT_MAX);
    tokio::time::advance(KEPT_FOR).await;
    sync.forget();
    assert!(sync.kept.is_empty());
}
