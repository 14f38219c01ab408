#include "clc/app/status_consumer.hpp"

#include "clc/store/accounts.hpp"
#include "common/base/ids.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::clc {
namespace {

constexpr std::string_view kQueue = "clc_status_queue";

void count(std::string_view what) {
  obs::metrics().count("educloud_clc_statuses_total", "Task statuses received, by what became of them", 1,
                       {{"result", std::string(what)}});
}

Result<msg::TaskStatus> read(const std::string& body, const std::string& sender) {
  auto status = msg::parse<msg::TaskStatus>(body);
  if (!status) return fail(status.error());
  if (auto tid = TaskId::parse(status->tid); !tid) return fail(tid.error());
  if (sender.empty()) return fail(ErrorCode::permission_denied, "sent without a user id");
  return status;
}

}  // namespace

void StatusConsumer::subscribe(bus::Bus& bus) {
  bus.subscribe({std::string(kQueue), 128, [this](bus::Delivery delivery) { take(std::move(delivery)); }});
}

void StatusConsumer::take(bus::Delivery delivery) {
  auto status = read(delivery.body, delivery.user_id);
  if (!status) {
    count("malformed");
    obs::warn(
        "status.refused",
        {{"sender", delivery.user_id}, {"key", delivery.routing_key}, {"error", status.error().message}});
    delivery.settle(bus::Verdict::reject);
    return;
  }
  auto settle = delivery.settle;
  auto work = [this, status = std::move(*status), sender = delivery.user_id](store::Sql& sql) {
    return consume(sql, status, sender).map([](const std::string&) {});
  };
  const bool posted = store_.post(std::move(work), [settle](const Result<>& done) {
    if (done) {
      settle(bus::Verdict::ack);
      return;
    }
    count("error");
    obs::error("status.failed", {{"error", done.error().message}});
    // A full disk passes; what breaks our rules would break them each time it comes again.
    const auto code = done.error().code;
    const bool passes = is_retryable(code) || code == ErrorCode::exhausted;
    settle(passes ? bus::Verdict::requeue : bus::Verdict::reject);
  });
  if (!posted) settle(bus::Verdict::requeue);
}

Result<std::string> StatusConsumer::retry(store::Sql& sql, const DeadLetter& letter) {
  auto status = read(letter.body, letter.sender);
  if (!status) {
    return fail(ErrorCode::conflict, "dead letter " + std::to_string(letter.id) +
                                         " cannot be read now either (" + status.error().message +
                                         "): drop it");
  }
  return consume(sql, *status, letter.sender);
}

/// A status may come before the heartbeat that tells of a reboot: what it says is of the time after.
Result<> StatusConsumer::heed_boot(store::Sql& sql, const msg::TaskStatus& status,
                                   const std::string& sender) {
  if (status.booted_at == 0) return {};
  const auto node = store::find_node(sql, status.nid);
  if (!node || "cc-" + node->cluster != sender) return {};
  return engine_.node_booted(sql, status.nid, status.booted_at);
}

Result<std::string> StatusConsumer::consume(store::Sql& sql, const msg::TaskStatus& status,
                                            const std::string& sender) {
  if (auto ok = heed_boot(sql, status, sender); !ok) return fail(ok.error());
  auto task = store::open_task(sql, status.tid);
  if (!task) {
    count("unknown_task");
    return "unknown_task";
  }
  auto judgement = judge_status(*task, status, sender);
  if (judgement.verdict == Verdict::accept && !is_walrus_task(task->kind)) {
    const auto node = store::find_node(sql, status.nid);
    if (!node || "cc-" + node->cluster != sender) judgement.verdict = Verdict::wrong_sender;
  }
  if (judgement.verdict == Verdict::accept && !status.msgid.empty() &&
      !store::consume(sql, sender, status.msgid, clock_.wall_ms())) {
    judgement.verdict = Verdict::duplicate;
  }
  const std::string verdict(to_string(judgement.verdict));
  count(verdict);
  switch (judgement.verdict) {
    case Verdict::accept:
      if (auto ok = engine_.accepted(sql, std::move(*task), judgement, status); !ok) return fail(ok.error());
      return verdict;
    case Verdict::duplicate:
      // Alive and with nothing new: no need to send the command again for a while.
      task->news_at = clock_.wall_ms();
      store::update_task(sql, *task);
      return verdict;
    case Verdict::wrong_sender:
    case Verdict::malformed:
      obs::warn("status.dropped", {{"tid", status.tid},
                                   {"why", verdict},
                                   {"sender", sender},
                                   {"nid", status.nid},
                                   {"event", status.event}});
      return verdict;
    case Verdict::stale:
    case Verdict::other_command:
    case Verdict::not_allowed:
      obs::debug("status.dropped", {{"tid", status.tid}, {"why", verdict}, {"event", status.event}});
      return verdict;
  }
  return verdict;
}

}  // namespace educloud::clc
