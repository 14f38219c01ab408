#include "clc/app/dead_letters.hpp"

#include <array>

#include "clc/store/dead_letters.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::clc {
namespace {

/// A label has few values, whatever a host writes into its messages.
std::string label(std::string_view reason) {
  static constexpr std::array kReasons{"rejected", "expired", "delivery_limit", "maxlen"};
  const bool known = std::find(kReasons.begin(), kReasons.end(), reason) != kReasons.end();
  return known ? std::string(reason) : "other";
}

}  // namespace

void DeadLetters::subscribe(bus::Bus& bus) {
  bus::Subscription subscription{"dead_letter_queue", 32,
                                 [this](bus::Delivery delivery) { take(std::move(delivery)); }};
  subscription.cut_oversized = true;
  bus.subscribe(std::move(subscription));
}

void DeadLetters::take(bus::Delivery delivery) {
  // Best effort, and one every 5 s: those of a cc that is away for a day would push out all that matters.
  if (msg::is_type(delivery.body, "lease")) {
    obs::metrics().count("educloud_clc_leases_dead_total", "Leases that no cc took");
    return delivery.settle(bus::Verdict::ack);
  }
  DeadLetter letter;
  letter.at = clock_.wall_ms();
  letter.queue = delivery.first_death_queue;
  letter.reason = delivery.first_death_reason;
  letter.exchange = delivery.first_death_exchange;
  letter.routing_key = delivery.routing_key;
  letter.sender = delivery.user_id;
  letter.body = std::move(delivery.body);
  letter.cause = cause_of(letter, std::max<std::uint64_t>(delivery.sent_bytes, letter.body.size()));
  auto settle = delivery.settle;
  auto work = [letter = std::move(letter)](store::Sql& sql) -> Result<> {
    const auto id = store::add_dead_letter(sql, letter);
    sql.after_commit(
        [id, queue = letter.queue, reason = letter.reason, cause = letter.cause, sender = letter.sender] {
          obs::metrics().count("educloud_clc_dead_letters_total",
                               "Messages that died, by the broker's reason", 1, {{"reason", label(reason)}});
          obs::warn("dead_letter.taken", {{"id", id},
                                          {"queue", queue},
                                          {"reason", reason},
                                          {"sender", sender},
                                          {"cause", cause.substr(0, 300)}});
        });
    return {};
  };
  // Nobody waits for it; a host that sends nothing but rubbish must not buy a sync with each message.
  const bool posted = store_.post_lazily(std::move(work), [settle](const Result<>& done) {
    if (!done) obs::error("dead_letter.failed", {{"error", done.error().message}});
    settle(done ? bus::Verdict::ack : bus::Verdict::requeue);
  });
  if (!posted) settle(bus::Verdict::requeue);
}

}  // namespace educloud::clc
