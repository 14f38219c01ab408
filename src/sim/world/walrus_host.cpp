#include "sim/world/walrus_host.hpp"

#include "common/base/random.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::sim {
namespace {

constexpr std::int64_t kTickMs = 1000;
constexpr std::int64_t kSlowestMs = 2000;  ///< of an order

}  // namespace

transfer::Receipt WalrusHost::seed_version(const std::string& imgid) {
  transfer::Receipt receipt{imgid, 1, random_hex(32), 1 << 20, 1 << 30, "raw", "", ""};
  images_[imgid].versions[1] = receipt;
  images_[imgid].current = 1;
  return receipt;
}

Result<std::string> WalrusHost::publish(const Submit& submit) {
  Result<std::string> answer = fail(ErrorCode::unavailable, "walrus does not answer");
  if (is_paused()) return answer;
  run([&] {
    auto done = publish_now(submit);
    crash_point();
    answer = std::move(done);
  });
  return answer;
}

Result<std::string> WalrusHost::publish_now(const Submit& submit) {
  crash_point();
  auto& image = images_[submit.imgid];
  if (const auto at = image.versions.find(submit.version); at != image.versions.end()) {
    if (at->second.cmdid == submit.cmdid) return transfer::sign_receipt(options_.data_key, at->second);
    return fail(ErrorCode::conflict, "that version is published already");
  }
  if (!submit.if_current.empty() && submit.if_current != transfer::make_parent(submit.imgid, image.current))
    return fail(ErrorCode::conflict, "another version is in use now");
  const transfer::Receipt receipt{submit.imgid, submit.version, random_hex(32), 1 << 20,
                                  1 << 30,      "raw",          submit.parent,  submit.cmdid};
  image.versions[submit.version] = receipt;
  image.current = std::max(image.current, submit.version);
  return transfer::sign_receipt(options_.data_key, receipt);
}

Result<> WalrusHost::boot() {
  bus_ = broker_.connect("walrus", *this);
  inbox::Options options;
  options.file = options_.folder / "walrus.sqlite";
  options.exchange = "clc_status";
  options.routing_key = "taskstatus.walrus";
  auto opened = inbox::Inbox::open(std::move(options), *bus_, clock_);
  if (!opened) return fail(opened.error());
  inbox_ = std::move(*opened);
  bus_->subscribe({"walrus_cmd_queue", 16, [this](const bus::Delivery& delivery) { handle(delivery); }});
  resume();
  bus_->start([this] { inbox_->resend(); });
  every(kTickMs, [this] { inbox_->tick(); });
  return {};
}

void WalrusHost::wreck() {
  inbox_.reset();
  bus_.reset();
}

void WalrusHost::resume() {
  for (const auto& entry : inbox_->unfinished()) {
    if (const auto order = walrus::check_command(entry.command)) execute(*order);
  }
}

void WalrusHost::handle(const bus::Delivery& delivery) {
  const auto command = msg::parse<msg::Command>(delivery.body);
  if (!command || !walrus::check_addressable(*command)) return delivery.settle(bus::Verdict::reject);
  const auto accepted = inbox_->accept(*command);
  if (!accepted) return delivery.settle(bus::Verdict::requeue);
  delivery.settle(bus::Verdict::ack);
  if (*accepted == inbox::Accepted::duplicate || *accepted == inbox::Accepted::stale) return;
  const auto order = walrus::check_command(*command);
  walrus::Order failed;
  failed.tid = command->tid;
  failed.cmdid = command->cmdid;
  if (!order) return report(failed, walrus::failure_news(order.error()));
  if (*accepted == inbox::Accepted::expired)
    return report(failed, walrus::failure_news(inbox::expired_error(*command, clock_.wall_ms())));
  execute(*order);
}

void WalrusHost::execute(const walrus::Order& order) {
  world_.timeline.after(life(), rng_.between(1, kSlowestMs), [this, order] {
    run([this, order] {
      if (order.operation == walrus::Operation::forget) return report(order, walrus::deleted_news());
      const auto done = carry_out(order);
      crash_point();
      report(order, done ? walrus::success_news("done") : walrus::failure_news(done.error()));
    });
  });
}

Result<> WalrusHost::carry_out(const walrus::Order& order) {
  auto& image = images_[order.imgid];
  switch (order.operation) {
    case walrus::Operation::use:
      if (!image.versions.contains(order.version)) return fail(ErrorCode::not_found, "no such version");
      image.current = order.version;
      return {};
    case walrus::Operation::prune:
      if (auto ok = walrus::check_prune(order, image.current); !ok) return ok;
      for (const int version : order.versions) image.versions.erase(version);
      return {};
    case walrus::Operation::remove: images_.erase(order.imgid); return {};
    case walrus::Operation::import: return fail(ErrorCode::internal, "uploads are not simulated");
    case walrus::Operation::blank: return fail(ErrorCode::internal, "database disks are not simulated");
    case walrus::Operation::forget: return {};
  }
  return {};
}

void WalrusHost::report(const walrus::Order& order, walrus::News news) {
  inbox::Report report;
  report.tid = order.tid;
  report.cmdid = order.cmdid;
  report.event = news.event;
  report.at = news.at;
  report.final = news.final;
  report.progress = news.progress;
  report.prompt = std::move(news.prompt);
  report.receipt = std::move(news.receipt);
  report.error = std::move(news.error);
  // A conflict: a newer command has the task now.
  (void)inbox_->report(report);
}

}  // namespace educloud::sim
