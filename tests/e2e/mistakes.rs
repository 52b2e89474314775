//! What goes wrong again and again where Matrix is put behind a proxy, and the test that shows that the preset does not do it. Reports of
//! the mistakes stand at the tests here; most were found in the issues of Synapse, Element and the projects that deploy them.
//!
//! A test is named by its file and its name: `tests/e2e/…`, or `proxy/tests/edge/…` where it begins with `edge`.
//!
//! | mistake | what comes of it | test |
//! | --- | --- | --- |
//! | no CORS on well-known documents | web clients find no homeserver (<https://github.com/element-hq/element-web/issues/7760>) | `preset::well_known_documents_on_the_host_and_on_the_bare_domain` |
//! | no CORS on errors, or twice | "cannot reach homeserver" instead of the error | `mistakes/cors::every_answer_says_once_that_pages_may_read_it` |
//! | the same while Synapse is down or in maintenance | the same | `faults::with_synapse_down_requests_fail_with_a_matrix_error`, `maintenance::requests_for_upstreams_are_told_and_everything_else_goes_on`, `edge/answers::every_error_is_in_form` |
//! | preflights refused, or sent where nobody answers them | no login from a web page | `mistakes/cors::preflights_are_answered_whoever_the_request_is_for` |
//! | well-known on the wrong host, or not on the bare domain; a redirect there | nobody federates (<https://github.com/matrix-org/synapse/issues/5292>) | `preset::well_known_documents_on_the_host_and_on_the_bare_domain`, `federation::rooms_messages_and_invitations` |
//! | `m.server` without a port | others try 8448 | `preset::well_known_documents_on_the_host_and_on_the_bare_domain` |
//! | a small limit for bodies, with a page as its answer | uploads fail, and nobody knows why (<https://github.com/matrix-org/synapse/issues/6485>) | `preset::uploads_may_be_as_large_as_synapse_says`, `bodies::an_over_long_body_is_413_before_the_upstream_hears_of_it` |
//! | 413 and a reset while the client still sends | the client sees no answer | `bodies::clients_that_send_it_all_receive_the_413` |
//! | a limit above Synapse's, which breaks off | the client sees no answer (<https://github.com/element-hq/synapse/issues/20022>) | `metadata::uploads_end_where_synapse_ends_them_and_its_inner_paths_stay_closed`, `mistakes/requests::an_upload_that_synapse_breaks_off_has_an_answer` |
//! | uploads framed anew without a length, `Expect` unanswered | 400, or a second of waiting | `mistakes/requests::an_upload_arrives_with_its_length_and_is_invited`, `bodies::a_body_at_the_limit_passes_with_its_length` |
//! | a timeout of 30 or 60 s | 504 at every quiet `/sync` (<https://github.com/matrix-org/thirdroom/issues/169>) | `bodies::a_long_poll_of_more_than_a_minute_passes`, `homeserver::a_long_poll_is_woken_by_a_message` |
//! | answers collected before they are passed on | a first `/sync` that seems to hang (<https://github.com/matrix-org/synapse/pull/14414>) | `edge/forward::part_of_an_answer_does_not_wait_for_the_rest`, `bodies::a_download_of_100_mb_passes_in_flat_memory_however_slow_the_client_is` |
//! | the port lost from `Host`, or a route that does not know it with one | endless redirects, no federation | `mistakes/doors::a_host_with_a_port_is_the_same_host_and_keeps_the_port` |
//! | paths decoded, merged, or encoded anew (`proxy_pass` with a path, no `nocanon`) | "Invalid signature" for some rooms only (<https://github.com/matrix-org/synapse/issues/3294>) | `federation::rooms_messages_and_invitations`, `forwarding::a_target_reaches_the_upstream_byte_for_byte_over_http_1`, `forwarding::a_target_reaches_the_upstream_byte_for_byte_over_http_2` |
//! | `X-Forwarded-For` appended to, or absent | addresses forged, or everybody behind one limit | `mistakes/requests::synapse_believes_no_address_of_the_clients_own`, `deployments::on_a_port_with_x_forwarded_for` |
//! | IPv6 addresses with brackets or a port | no address at all | `mistakes/requests::an_ipv6_client_is_one_bare_address` |
//! | no `X-Forwarded-Proto` | `http://` in what Synapse makes, loops | `mistakes/requests::synapse_knows_that_it_was_https` |
//! | a loose expression for logins | media called `login.png` is 404, and so are rooms, keys and devices of such names | `mistakes/logins::what_is_called_login_is_no_login`, `homeserver::media_of_20_mb_and_things_called_login` |
//! | one that knows `login` by more spellings than its server | a door without a limit for guesses | `mistakes/logins::odd_ways_to_write_login_are_no_second_door` |
//! | `/_synapse` as a whole is public | whoever has the shared secret is everybody (<https://github.com/matrix-org/synapse/issues/8154>) | `preset::what_governs_synapse_is_nobodys`, `metadata::uploads_end_where_synapse_ends_them_and_its_inner_paths_stay_closed`, `preset::what_operators_need_is_for_admin_allow_alone` |
//! | everything on 8448 | a way around what 443 keeps closed | `mistakes/doors::the_federation_port_is_no_way_around_the_other_one`, `preset::the_federation_port_serves_federation_and_keys_and_the_host_serves_them_too` |
//! | the name in TLS and `Host` have to be one | no federation by SRV records | `mistakes/doors::the_name_in_tls_and_the_host_may_differ` |
//! | the first site is the default one | Synapse by its address, or by anybody's name | `mistakes/doors::a_host_that_nobody_configured_is_nobodys` |
//! | a careless redirect to HTTPS | lost queries, `POST` as `GET`, certificates that are not renewed | `mistakes/doors::http_leads_to_the_same_place_on_https` |
//! | compression, weakened validators, lost ranges | broken downloads, caches that never hit | `mistakes/requests::encodings_validators_and_ranges_are_left_alone` |
//! | 8 KiB for a head | 400 for long tokens | `mistakes/requests::large_heads_pass_both_ways` |
//! | `Connection: upgrade` for everybody | what was not meant, at Synapse; or no WebSocket where it is needed | `mistakes/requests::wishes_to_upgrade_stop_at_the_edge`, `calls::a_call_is_set_up_and_lasts` |
//! | HTTP/1.0 to Synapse, chunks to clients of 1.0 | half answers | `mistakes/requests::every_version_of_http_gets_the_same_answer`, `edge/interim::old_clients_get_no_chunks` |
//! | metadata of the auth service that Synapse keeps until it is restarted | clients log in at the old one | `metadata::a_restarted_auth_service_is_believed_at_once` |
//! | certificates that nobody checks | anybody is `beta.test` | `federation::a_certificate_of_another_name_is_not_believed` |

use std::path::Path;

mod cors;
mod deployment;
mod doors;
mod logins;
mod requests;

/// The table is of no use when it names what is gone.
#[test]
fn the_table_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = include_str!("mistakes.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let mut named = 0;
    for row in table.skip(2) {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap();
        for test in tests.split(',') {
            let (file, name) = test.trim().trim_matches('`').split_once("::").expect("file::name");
            let file = match file.strip_prefix("edge/") {
                Some(file) => format!("proxy/tests/edge/{file}.rs"),
                None => format!("tests/e2e/{file}.rs"),
            };
            let text =
                std::fs::read_to_string(root.join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(text.contains(&format!("fn {name}()")), "{file} has no test {name}");
            named += 1;
        }
    }
    assert!(named > 40, "{named} are few: is the table still read?");
}
