//! The table of choices, and of what changes them.

use super::*;
use crate::source::{LaneState, Purpose, Thrift};

const SECOND: Duration = Duration::from_secs(1);
const HEAD_EVERY: Duration = Duration::from_millis(100);

/// Lanes, and the time as the test has it.
struct Bench {
    lanes: Lanes,
    ways: Vec<WayNow>,
    now: Instant,
}

impl Bench {
    /// Accounts as `name` or `name:prefix`, ways out by their names.
    fn new(accounts: &[&str], ways: &[&str]) -> Self {
        Self::with(accounts, true, ways, Share::Percent(0))
    }

    fn with(accounts: &[&str], anonymous: bool, ways: &[&str], reserve: Share) -> Self {
        let entry = |text: &&str| {
            let (name, prefix) = text.split_once(':').unwrap_or((text, ""));
            let repositories = prefix.split(',').filter(|one| !one.is_empty()).map(repository).collect();
            Entry { name: name.into(), repositories }
        };
        let names: Vec<Arc<str>> = ways.iter().map(|way| Arc::from(*way)).collect();
        let lanes = Lanes::new(accounts.iter().map(entry).collect(), anonymous, &names, reserve);
        Self { lanes, ways: vec![WayNow::default(); ways.len()], now: Instant::now() }
    }

    fn take(&mut self, cost: Cost, name: &str) -> Result<Choice, Closed> {
        self.take_beside(cost, name, &Tried::default())
    }

    fn take_beside(&mut self, cost: Cost, name: &str, tried: &Tried) -> Result<Choice, Closed> {
        let repository = repository(name);
        let need = Need { cost, repository: &repository, purpose: Purpose::Missing };
        self.now += Duration::from_nanos(1);
        self.lanes.take(&need, tried, &self.ways, self.now)
    }

    /// Takes and tells the name of what was taken; it stays under way.
    fn name(&mut self, cost: Cost, name: &str) -> String {
        match self.take(cost, name) {
            Ok(choice) => self.lanes.lanes[choice.lane].names[choice.way].to_string(),
            Err(closed) => format!("{closed:?}"),
        }
    }

    fn hears(&mut self, choice: &Choice, limit: u64, remaining: u64, source: Option<&str>) {
        let source = source.map(str::to_owned);
        self.now += Duration::from_nanos(1);
        self.lanes.heard(choice, Quota { limit, remaining, window: None, source }, self.now);
    }

    /// A GET that is answered, with what is left afterwards.
    fn got(&mut self, choice: &Choice, name: &str, limit: u64, remaining: u64) {
        self.hears(choice, limit, remaining, None);
        self.answered(choice, Cost::Counted, name);
    }

    fn answered(&mut self, choice: &Choice, cost: Cost, name: &str) {
        let repository = repository(name);
        let need = Need { cost, repository: &repository, purpose: Purpose::Missing };
        self.lanes.answered(choice, &need, true, self.now);
        self.lanes.ended(choice, cost);
    }

    /// A 429 for the quota.
    fn spent(&mut self, choice: &Choice, asked: Option<u64>) -> Duration {
        self.now += Duration::from_nanos(1);
        let asked = asked.map(Duration::from_secs);
        let wait = self.lanes.refused(choice, Cost::Counted, false, asked, self.now);
        self.lanes.ended(choice, Cost::Counted);
        wait
    }

    fn states(&mut self) -> Vec<(String, LaneState)> {
        let reports = self.lanes.reports(self.now).into_iter();
        reports.map(|report| (report.egress.unwrap_or(report.account), report.state)).collect()
    }

    fn thrift(&self, name: &str) -> Thrift {
        self.lanes.thrift(&repository(name), self.now)
    }
}

fn repository(name: &str) -> RepositoryName {
    name.parse().expect("a name")
}

#[test]
fn three_accounts_and_two_ways_out_are_five_lanes_with_names() {
    let mut bench = Bench::new(&["ann", "bob", "cid"], &["a", "b"]);
    assert_eq!(bench.states().len(), 5);
    let names: Vec<_> = bench.lanes.lanes.iter().flat_map(|lane| lane.names.iter()).collect();
    assert!(names.iter().any(|name| ***name == *"cid via b"), "{names:?}");
    assert!(names.iter().any(|name| ***name == *"anonymous via a"), "{names:?}");
    assert!(!bench.lanes.is_single());
    for accounts in [&[][..], &["ann"]] {
        let mut single = Bench::with(accounts, false, &["default"], Share::Percent(0));
        let choice = single.take(Cost::Counted, "a").unwrap();
        assert!(single.lanes.is_single() && single.lanes.name(&choice).is_none());
    }
}

#[test]
fn a_get_takes_the_lane_with_most_left_less_what_is_under_way() {
    let mut bench = Bench::new(&["ann", "bob"], &["a"]);
    // Not heard of yet: 200 for an account, 100 without, accounts in their order.
    let first = bench.take(Cost::Counted, "r0").unwrap();
    assert_eq!(first.holder, 0);
    assert_eq!(bench.name(Cost::Counted, "r1"), "bob via a");
    bench.got(&first, "r0", 100, 99);
    assert_eq!(bench.name(Cost::Counted, "r2"), "bob via a", "199 less one under way");
    // The rest of ann's is below that of nobody's.
    let mut bench = Bench::new(&["ann"], &["a", "b"]);
    let ann = bench.take(Cost::Counted, "r0").unwrap();
    bench.got(&ann, "r0", 200, 98);
    let taken: Vec<String> = (1..=6).map(|n| bench.name(Cost::Counted, &format!("r{n}"))).collect();
    let via_a = taken.iter().filter(|name| **name == "anonymous via a").count();
    let via_b = taken.iter().filter(|name| **name == "anonymous via b").count();
    assert!((2..=3).contains(&via_a) && (2..=3).contains(&via_b), "{taken:?}");
}

#[test]
fn five_hundred_gets_are_a_hundred_by_each_of_five_lanes() {
    let mut bench = Bench::new(&["ann", "bob", "cid"], &["a", "b"]);
    let mut left = [100_u64; 5];
    let mut under_way = std::collections::VecDeque::new();
    for n in 0..500 {
        let name = format!("library/r{n}");
        let choice = bench.take(Cost::Counted, &name).unwrap();
        under_way.push_back((choice, name));
        if under_way.len() == 16 || n == 499 {
            while under_way.len() > 15 || (n == 499 && !under_way.is_empty()) {
                let (choice, name) = under_way.pop_front().unwrap();
                left[choice.lane] = left[choice.lane].checked_sub(1).expect("no lane is overdrawn");
                let remaining = left[choice.lane];
                bench.got(&choice, &name, 100, remaining);
            }
        }
    }
    assert_eq!(left, [0; 5]);
}

#[test]
fn what_counts_nothing_comes_first_and_accounts_before_nobody() {
    let mut bench = Bench::new(&["ann"], &["a"]);
    let ann = bench.take(Cost::Counted, "r").unwrap();
    bench.lanes.heard_of_no_quota(&ann);
    let nobody = bench.take_beside(Cost::Counted, "r", &Tried::default().with_holder(0)).unwrap();
    bench.lanes.heard_of_no_quota(&nobody);
    assert_eq!(bench.name(Cost::Counted, "r"), "ann via a");
    bench.hears(&ann, 200, 200, None);
    assert_eq!(bench.name(Cost::Counted, "r"), "anonymous via a", "an account that is counted after all");
    bench.lanes.heard_of_no_quota(&ann);
    assert_eq!(bench.name(Cost::Counted, "r"), "anonymous via a", "an image that is free does not free all");
}

#[test]
fn who_served_a_repository_goes_on_where_little_is_lost() {
    let mut bench = Bench::new(&["ann", "bob"], &["a"]);
    let ann = bench.take(Cost::Counted, "r").unwrap();
    bench.got(&ann, "r", 200, 195);
    assert_eq!(bench.name(Cost::Counted, "r"), "ann via a", "195 are nearly 200");
    assert_eq!(bench.name(Cost::Counted, "s"), "bob via a");
    bench.hears(&ann, 200, 150, None);
    assert_eq!(bench.name(Cost::Counted, "r"), "bob via a");
    assert_eq!(bench.name(Cost::Other, "r"), "ann via a", "blobs are not counted");
    assert_eq!(bench.name(Cost::Free, "r"), "bob via a", "a HEAD goes where its GET would");
}

#[test]
fn a_429_of_the_quota_moves_on_and_comes_back_when_it_was_told() {
    let mut bench = Bench::new(&["ann"], &["a"]);
    let ann = bench.take(Cost::Counted, "r").unwrap();
    assert_eq!(bench.spent(&ann, Some(30)), SECOND * 30);
    assert_eq!(bench.states()[0], ("ann".to_owned(), LaneState::Spent));
    let nobody = bench.take(Cost::Counted, "r").unwrap();
    assert_eq!(nobody.holder, 1);
    bench.spent(&nobody, Some(90));
    assert!(matches!(bench.take(Cost::Counted, "r"), Err(Closed::Waits(wait)) if wait <= SECOND * 30));
    bench.now += SECOND * 30;
    let ann = bench.take(Cost::Counted, "r").unwrap();
    assert_eq!(ann.holder, 0, "the first to reset");
    assert!(matches!(bench.take(Cost::Counted, "r"), Err(Closed::Probed(_))), "one finds out");
    bench.got(&ann, "r", 200, 199);
    assert_eq!(bench.name(Cost::Counted, "r"), "ann via a");
}

#[test]
fn a_429_that_says_nothing_waits_longer_each_time_or_until_our_first_get_leaves_the_window() {
    let mut bench = Bench::new(&[], &["a"]);
    let waits: Vec<u64> = (0..3)
        .map(|_| {
            let choice = bench.take(Cost::Counted, "r").unwrap();
            let wait = bench.spent(&choice, None);
            bench.now += wait;
            wait.as_secs()
        })
        .collect();
    assert_eq!(waits, [60, 120, 240]);
    let mut bench = Bench::new(&[], &["a"]);
    let choice = bench.take(Cost::Counted, "r").unwrap();
    bench.got(&choice, "r", 1, 0);
    bench.now += WINDOW - SECOND * 20;
    let choice = bench.take(Cost::Counted, "r").unwrap();
    assert_eq!(bench.spent(&choice, None).as_secs(), 19, "the window ends before");
}

#[test]
fn of_many_429s_at_once_the_first_counts() {
    let mut bench = Bench::new(&[], &["a"]);
    let choices: Vec<Choice> = (0..16).map(|_| bench.take(Cost::Counted, "r").unwrap()).collect();
    for choice in &choices[1..] {
        assert!(bench.spent(choice, None) <= SECOND * 60);
    }
    bench.got(&choices[0], "r", 1, 0);
    assert!(
        matches!(bench.take(Cost::Counted, "r"), Err(Closed::Waits(_))),
        "what was sent before opens nothing"
    );
}

#[test]
fn of_answers_that_overtake_one_another_the_one_with_less_is_believed() {
    let mut bench = Bench::new(&[], &["a"]);
    let (one, two) = (bench.take(Cost::Counted, "r").unwrap(), bench.take(Cost::Counted, "r").unwrap());
    bench.got(&two, "r", 100, 98);
    bench.got(&one, "r", 100, 99);
    let rest = |bench: &mut Bench| bench.lanes.reports(bench.now)[0].remaining;
    assert_eq!(rest(&mut bench), Some(98));
    let later = bench.take(Cost::Free, "r").unwrap();
    bench.hears(&later, 100, 100, None);
    assert_eq!(rest(&mut bench), Some(100), "a new window");
}

#[test]
fn lanes_that_are_counted_together_are_spent_and_saved_together() {
    let mut bench = Bench::new(&[], &["a", "b"]);
    let (one, two) = (bench.take(Cost::Counted, "r").unwrap(), bench.take(Cost::Counted, "r").unwrap());
    assert_ne!(one.way, two.way);
    bench.hears(&one, 100, 60, Some("192.0.2.1"));
    bench.hears(&two, 100, 59, Some("192.0.2.1"));
    let rests: Vec<_> = bench.lanes.reports(bench.now).into_iter().map(|report| report.remaining).collect();
    assert_eq!(rests, [Some(59), Some(59)]);
    bench.spent(&one, Some(30));
    assert!(matches!(bench.take(Cost::Counted, "r"), Err(Closed::Waits(_))));
}

#[test]
fn a_head_opens_a_lane_again_unless_it_is_not_to_be_believed() {
    let mut bench = Bench::new(&[], &["a"]);
    let get = bench.take(Cost::Counted, "r").unwrap();
    let early = bench.take(Cost::Free, "r").unwrap();
    bench.spent(&get, None);
    bench.hears(&early, 100, 1, None);
    assert!(bench.take(Cost::Counted, "r").is_err(), "it was asked for before");
    let head = bench.take(Cost::Free, "r").unwrap();
    bench.hears(&head, 100, 0, None);
    assert!(bench.take(Cost::Counted, "r").is_err(), "nothing is left");
    bench.now += HEAD_EVERY;
    let head = bench.take(Cost::Free, "r").unwrap();
    bench.hears(&head, 100, 3, None);
    let get = bench.take(Cost::Counted, "r").expect("three are left");
    bench.spent(&get, None);
    bench.now += HEAD_EVERY;
    let head = bench.take(Cost::Free, "r").unwrap();
    bench.hears(&head, 100, 3, None);
    assert!(bench.take(Cost::Counted, "r").is_err(), "so it said before");
}

#[test]
fn where_all_is_spent_heads_go_seldom_by_what_was_not_heard_of_for_longest() {
    let mut bench = Bench::new(&["ann"], &["a"]);
    for _ in 0..2 {
        let choice = bench.take(Cost::Counted, "r").unwrap();
        bench.hears(&choice, 100, 0, None);
        bench.spent(&choice, Some(600));
    }
    let first = bench.take(Cost::Free, "r").unwrap();
    bench.hears(&first, 100, 0, None);
    let told = bench.take(Cost::Free, "r");
    assert!(matches!(told, Err(Closed::Waits(wait)) if wait.as_secs() == 599), "as a GET is told: {told:?}");
    bench.now += HEAD_EVERY;
    let second = bench.take(Cost::Free, "r").unwrap();
    assert_ne!(first.lane, second.lane);
    for _ in 0..100 {
        bench.take(Cost::Other, "r").expect("blobs cost nothing");
    }
}

#[test]
fn a_429_for_abuse_rests_the_way_and_not_the_account() {
    for cost in [Cost::Counted, Cost::Free, Cost::Other] {
        let mut bench = Bench::new(&["ann"], &["a", "b"]);
        let choice = bench.take(cost, "r").unwrap();
        assert_eq!((choice.holder, choice.way), (0, 0));
        assert_eq!(bench.lanes.refused(&choice, cost, true, None, bench.now), SECOND * 60);
        for cost in [Cost::Counted, Cost::Free, Cost::Other] {
            assert_eq!(bench.name(cost, "r"), "ann via b");
        }
        let states = bench.states();
        assert_eq!(states.iter().filter(|(_, state)| *state == LaneState::Resting).count(), 1, "{states:?}");
        let choice = bench.take(cost, "r").unwrap();
        bench.lanes.refused(&choice, cost, true, Some(SECOND * 7), bench.now);
        assert!(matches!(bench.take(cost, "r"), Err(Closed::Waits(wait)) if wait <= SECOND * 7));
    }
}

#[test]
fn a_429_to_a_head_or_blob_closes_that_way_for_all_that_is_not_counted() {
    let mut bench = Bench::new(&[], &["a"]);
    let choice = bench.take(Cost::Free, "r").unwrap();
    bench.lanes.refused(&choice, Cost::Free, false, None, bench.now);
    assert!(bench.take(Cost::Free, "r").is_err() && bench.take(Cost::Other, "r").is_err());
    assert!(bench.take(Cost::Counted, "r").is_ok());
}

#[test]
fn the_way_with_the_least_under_way_is_taken_and_ways_take_turns() {
    let mut bench = Bench::new(&["ann"], &["a", "b", "c"]);
    let ways: Vec<usize> = (0..6).map(|_| bench.take(Cost::Other, "r").unwrap().way).collect();
    assert_eq!(ways, [0, 1, 2, 0, 1, 2]);
    bench.ways[0].load = 2;
    bench.ways[1].load = 1;
    bench.ways[2].load = 3;
    assert_eq!(bench.take(Cost::Other, "r").unwrap().way, 1);
    bench.ways[1].down = Some(SECOND);
    assert_eq!(bench.take(Cost::Other, "r").unwrap().way, 0);
    let tried = Tried { ways: vec![0], holders: vec![] };
    assert_eq!(bench.take_beside(Cost::Other, "r", &tried).unwrap().way, 2);
    bench.ways.iter_mut().for_each(|way| way.down = Some(SECOND));
    assert_eq!(bench.take(Cost::Other, "r"), Err(Closed::Down(SECOND)));
    let tried = Tried { ways: vec![0, 1, 2], holders: vec![] };
    assert_eq!(bench.take_beside(Cost::Other, "r", &tried), Err(Closed::Tried));
}

#[test]
fn the_accounts_with_the_longest_prefix_are_for_a_repository_and_no_others() {
    let accounts = ["ann", "acme:acme", "team:acme/team,other/x", "both:acme"];
    let bench = Bench::new(&accounts, &["a"]);
    for (name, holders) in [
        ("library/alpine", &[0, 4][..]),
        ("acme", &[1, 3]),
        ("acme/app", &[1, 3]),
        ("acmes/app", &[0, 4]),
        ("acme/team", &[2]),
        ("acme/team/app", &[2]),
        ("acme/teams", &[1, 3]),
        ("other/x", &[2]),
        ("other", &[0, 4]),
    ] {
        assert_eq!(bench.lanes.entitled(&repository(name)), holders, "{name}");
    }
    let mut bench = Bench::with(&["acme:acme"], false, &["a"], Share::Percent(0));
    assert_eq!(bench.take(Cost::Counted, "library/alpine"), Err(Closed::Nobody));
}

#[test]
fn who_does_not_see_a_repository_is_spared_for_a_while() {
    let mut bench = Bench::new(&["ann", "bob"], &["a"]);
    let secret = repository("bob/secret");
    let ann = bench.take(Cost::Counted, "bob/secret").unwrap();
    bench.lanes.does_not_see(ann.holder, &secret, bench.now);
    let bob = bench.take(Cost::Counted, "bob/secret").unwrap();
    assert_eq!(bob.holder, 1);
    assert_eq!(bench.name(Cost::Counted, "library/alpine"), "ann via a");
    bench.lanes.does_not_see(1, &secret, bench.now);
    bench.lanes.does_not_see(2, &secret, bench.now);
    let one = bench.take(Cost::Counted, "bob/secret").expect("where nobody sees it, one finds out");
    let more = bench.take_beside(Cost::Counted, "bob/secret", &Tried::default().with_holder(one.holder));
    assert_eq!(more, Err(Closed::Tried), "and no more than one");
    bench.answered(&bob, Cost::Counted, "bob/secret");
    assert_eq!(bench.take(Cost::Free, "bob/secret").unwrap().holder, 1, "who served it sees it");
    bench.now += SECOND * 301;
    let need = Need { cost: Cost::Free, repository: &secret, purpose: Purpose::Missing };
    assert_eq!(bench.lanes.usable(&need, &Tried::default(), bench.now).unwrap(), [0, 1, 2]);
}

#[test]
fn only_nobody_s_404_is_asked_about_again_and_only_of_an_account() {
    let bench = Bench::new(&["ann"], &["a"]);
    let name = repository("r");
    let need = Need { cost: Cost::Free, repository: &name, purpose: Purpose::Missing };
    let sees_more = |holder: usize| {
        bench.lanes.may_see_more(holder, &need, &Tried::default().with_holder(holder), bench.now)
    };
    assert!(sees_more(1) && !sees_more(0));
    assert!(!bench.lanes.may_see_more(1, &need, &Tried { holders: vec![0, 1], ways: vec![] }, bench.now));
}

#[test]
fn an_account_that_does_not_get_in_is_left_out_said_once_and_tried_again() {
    let mut bench = Bench::new(&["ann", "bob"], &["a"]);
    assert_eq!(bench.lanes.login_failed(0, "wrong", bench.now), Login::Out);
    assert_eq!(bench.lanes.login_failed(0, "wrong", bench.now), Login::StillOut);
    let report = bench.lanes.reports(bench.now).swap_remove(0);
    assert_eq!((report.state, report.reason.as_deref()), (LaneState::LoggedOut, Some("wrong")));
    for _ in 0..10 {
        assert_eq!(bench.name(Cost::Counted, "r"), "bob via a");
    }
    bench.now += SECOND * 120;
    assert_eq!(bench.take(Cost::Counted, "r").unwrap().holder, 0, "one finds out");
    assert_eq!(bench.take(Cost::Counted, "r").unwrap().holder, 1);
    assert!(bench.lanes.got_in(0));
    assert!(!bench.lanes.got_in(0));
    assert_eq!(bench.lanes.login_failed(0, "wrong", bench.now), Login::NotForThis, "it got in a moment ago");
    assert_eq!(bench.lanes.login_failed(0, "wrong", bench.now), Login::NotForThis);
    assert_eq!(bench.lanes.login_failed(0, "wrong", bench.now), Login::Out, "three times in a row");
}

#[test]
fn an_account_that_is_left_out_leaves_its_repositories_to_nobody() {
    let mut bench = Bench::new(&["acme:acme"], &["a"]);
    bench.lanes.login_failed(0, "wrong", bench.now);
    assert!(
        matches!(bench.take(Cost::Free, "acme/app"), Err(Closed::LoggedOut(name, _)) if &*name == "acme")
    );
    assert_eq!(bench.name(Cost::Free, "library/alpine"), "anonymous via a");
    let mut alone = Bench::with(&["ann"], false, &["a"], Share::Percent(0));
    alone.lanes.login_failed(0, "wrong", alone.now);
    assert!(alone.take(Cost::Free, "r").is_ok(), "there is nothing else to try");
}

#[test]
fn what_has_left_the_window_may_be_had_again() {
    let mut bench = Bench::new(&[], &["a"]);
    for left in (0..3).rev() {
        let choice = bench.take(Cost::Counted, "r").unwrap();
        bench.got(&choice, "r", 3, left);
        bench.now += SECOND * 600;
    }
    let row = |bench: &mut Bench| {
        let report = bench.lanes.reports(bench.now).swap_remove(0);
        (report.remaining, report.used, report.resets_in.map(|wait| wait.as_secs()))
    };
    assert_eq!(row(&mut bench), (Some(0), 3, Some(21_600 - 1_800 - 1)));
    bench.now += WINDOW - SECOND * 1_800;
    assert_eq!(row(&mut bench), (Some(1), 2, Some(599)));
    bench.now += WINDOW;
    assert_eq!(row(&mut bench), (Some(3), 0, None));
}

#[test]
fn the_reserve_is_counted_over_all_lanes_that_are_for_a_repository() {
    let table = [
        (Share::Percent(10), 21, Thrift::Plenty),
        (Share::Percent(10), 20, Thrift::Low),
        (Share::Percent(0), 0, Thrift::Plenty),
        (Share::Count(30), 31, Thrift::Plenty),
        (Share::Count(30), 30, Thrift::Low),
        (Share::Count(0), 0, Thrift::Plenty),
    ];
    for (reserve, rest, thrift) in table {
        let mut bench = Bench::with(&["ann", "acme:acme"], true, &["a"], reserve);
        let ann = bench.take(Cost::Free, "r").unwrap();
        bench.hears(&ann, 100, rest, None);
        let nobody = bench.take_beside(Cost::Free, "r", &Tried::default().with_holder(0)).unwrap();
        bench.hears(&nobody, 100, 0, None);
        assert_eq!(bench.thrift("library/alpine"), thrift, "{reserve:?} {rest}");
        assert_eq!(bench.thrift("acme/app"), Thrift::Plenty);
        let name = repository("r");
        let need = Need { cost: Cost::Counted, repository: &name, purpose: Purpose::Refresh };
        let choice = bench.lanes.choose(&need, &Tried::default(), &bench.ways, bench.now);
        assert_eq!(choice == Err(Closed::Reserved), thrift == Thrift::Low);
        bench.lanes.heard_of_no_quota(&ann);
    }
    let mut spent = Bench::with(&[], true, &["a"], Share::Count(0));
    let choice = spent.take(Cost::Counted, "r").unwrap();
    spent.spent(&choice, Some(60));
    assert_eq!(spent.thrift("r"), Thrift::Low, "without a reserve too, nothing is to be had");
    spent.now += SECOND * 60;
    assert_eq!(spent.thrift("r"), Thrift::Plenty);
    let mut free = Bench::with(&["ann"], true, &["a"], Share::Percent(50));
    let ann = free.take(Cost::Free, "r").unwrap();
    free.lanes.heard_of_no_quota(&ann);
    assert_eq!(free.thrift("r"), Thrift::Plenty);
}
