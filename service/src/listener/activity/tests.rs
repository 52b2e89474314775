//! Verdicts at given times.

use super::*;

const TIMEOUTS: fn() -> HttpTimeouts = HttpTimeouts::default;

fn activity(now: Instant) -> Arc<Activity> {
    Arc::new(Activity::new(HttpLimits::default(), TIMEOUTS(), now))
}

fn get(activity: &Arc<Activity>) -> InFlight {
    activity.received(b"GET / HTTP/1.1\r\n\r\n", Instant::now()).expect("no flood");
    activity.begin(Version::HTTP_11).0
}

#[test]
fn a_connection_without_a_request_is_closed_soon() {
    let now = Instant::now();
    let activity = activity(now);
    assert_eq!(activity.verdict(now), Verdict::Fine);
    assert_eq!(activity.verdict(now + TIMEOUTS().header), Verdict::Cut(Limit::Header));
}

#[test]
fn a_request_in_flight_may_take_its_time_and_idleness_counts_from_its_end() {
    let activity = activity(Instant::now());
    let request = get(&activity);
    activity.received(b"x", Instant::now()).expect("no flood");
    assert_eq!(activity.verdict(Instant::now() + TIMEOUTS().idle * 10), Verdict::Fine);
    drop(request);
    assert_eq!(activity.verdict(Instant::now() + TIMEOUTS().header), Verdict::Fine);
    assert_eq!(activity.verdict(Instant::now() + TIMEOUTS().idle), Verdict::End(Some(Limit::Idle)));
}

#[test]
fn a_slow_second_head_is_not_idleness() {
    let activity = activity(Instant::now());
    drop(get(&activity));
    activity.received(b"G", Instant::now()).expect("no flood");
    activity.received(b"E", Instant::now() + Duration::from_secs(10)).expect("no flood");
    assert_eq!(activity.verdict(Instant::now() + TIMEOUTS().header), Verdict::Cut(Limit::Header));
}

#[test]
fn frames_between_requests_of_http2_are_no_head() {
    let now = Instant::now();
    let activity = activity(now);
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    activity.received(&PREFACE[..7], now).expect("no flood");
    activity.received(&[&PREFACE[7..], settings].concat(), now).expect("no flood");
    assert_eq!(activity.verdict(now + TIMEOUTS().header), Verdict::Fine);
    assert_eq!(activity.verdict(now + TIMEOUTS().idle), Verdict::End(Some(Limit::Idle)));
    // HEADERS without END_HEADERS: a head has begun, whatever else goes on.
    let request = activity.begin(Version::HTTP_2);
    activity.received(b"\0\0\x01\x01\0\0\0\0\x01\x82", now).expect("no flood");
    assert_eq!(activity.verdict(now + TIMEOUTS().header), Verdict::Cut(Limit::Header));
    activity.received(b"\0\0\x01\x09\x04\0\0\0\x01\x84", now).expect("no flood");
    assert_eq!(activity.verdict(now + TIMEOUTS().header), Verdict::Fine);
    drop(request);
}

#[test]
fn pings_without_end_are_a_flood() {
    let now = Instant::now();
    let activity = activity(now);
    activity.received(PREFACE, now).expect("no flood");
    let ping = [b"\0\0\x08\x06\0\0\0\0\0".as_slice(), &[0; 8]].concat();
    let all = HttpLimits::default().h2_control_frames;
    let flood = (0..=all).find_map(|_| activity.received(&ping, now).err());
    assert_eq!(flood, Some(Limit::H2ControlFrames));
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_cut_off_and_one_that_is_slow_is_not() {
    let now = Instant::now();
    let activity = activity(now);
    let request = get(&activity);
    request.offers(0, now);
    let pause = TIMEOUTS().send - Duration::from_secs(1);
    assert_eq!(activity.verdict(now + pause), Verdict::Fine);
    request.offers(1 << 20, now + pause);
    assert_eq!(activity.verdict(now + pause + pause), Verdict::Fine);
    assert_eq!(activity.verdict(now + pause + TIMEOUTS().send), Verdict::Cut(Limit::Send));
}

#[test]
fn a_connection_that_is_to_end_ends_when_it_is_quiet() {
    let activity = activity(Instant::now());
    let request = get(&activity);
    activity.end();
    assert_eq!(activity.verdict(Instant::now() + LAST_CHANCE), Verdict::Fine, "not before the answer");
    drop(request);
    assert_eq!(activity.verdict(Instant::now()), Verdict::Fine);
    assert_eq!(activity.verdict(Instant::now() + LAST_CHANCE), Verdict::End(None));
    activity.received(b"G", Instant::now()).expect("no flood");
    assert_eq!(activity.verdict(Instant::now() + LAST_CHANCE), Verdict::Fine, "a further request");
}

#[test]
fn the_last_request_is_told_apart() {
    let limits = HttpLimits { max_requests_per_connection: 2, ..HttpLimits::default() };
    let activity = Arc::new(Activity::new(limits, TIMEOUTS(), Instant::now()));
    assert_eq!(activity.begin(Version::HTTP_11).1, None);
    assert!(!activity.is_ending());
    assert_eq!(activity.begin(Version::HTTP_11).1, Some(Limit::MaxRequestsPerConnection));
    assert!(activity.is_ending());
}
