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

Result<msg::TaskStatus> read(const bus::Delivery& delivery) {
  auto status = msg::parse<msg::TaskStatus>(delivery.body);
  if (!status) return fail(status.error());
  if (auto tid = TaskId::parse(status->tid); !tid) return fail(tid.error());
  if (delivery.user_id.empty()) return fail(ErrorCode::permission_denied, "sent without a user id");
  return status;
}

}  // namespace

void StatusConsumer::subscribe(bus::Bus& bus) {
  bus.subscribe({std::string(kQueue), 128, [this](bus::Delivery delivery) { take(std::move(delivery)); }});
}

void StatusConsumer::take(bus::Delivery delivery) {
  auto status = read(delivery);
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
    return consume(sql, status, sender);
  };
  const bool posted = store_.post(std::move(work), [settle](const Result<>& done) {
    if (done) {
      settle(bus::Verdict::ack);
      return;
    }
    count("error");
    obs::error("status.failed", {{"error", done.error().message}});
    // A full disk passes; a message that breaks our rules every time must not go round for ever: the
    // queue's delivery limit ends that.
    settle(bus::Verdict::requeue);
  });
  if (!posted) settle(bus::Verdict::requeue);
}

Result<> StatusConsumer::consume(store::Sql& sql, const msg::TaskStatus& status, const std::string& sender) {
  auto task = store::open_task(sql, status.tid);
  if (!task) {
    count("unknown_task");
    return {};
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
  count(to_string(judgement.verdict));
  switch (judgement.verdict) {
    case Verdict::accept: return engine_.accepted(sql, std::move(*task), judgement, status);
    case Verdict::duplicate:
      // Alive and with nothing new: no need to send the command again for a while.
      task->news_at = clock_.wall_ms();
      store::update_task(sql, *task);
      return {};
    case Verdict::wrong_sender:
    case Verdict::malformed:
      obs::warn("status.dropped", {{"tid", status.tid},
                                   {"why", to_string(judgement.verdict)},
                                   {"sender", sender},
                                   {"nid", status.nid},
                                   {"event", status.event}});
      return {};
    case Verdict::stale:
    case Verdict::other_command:
    case Verdict::not_allowed:
      obs::debug("status.dropped",
                 {{"tid", status.tid}, {"why", to_string(judgement.verdict)}, {"event", status.event}});
      return {};
  }
  return {};
}

}  // namespace educloud::clc
