#include "walrus/app/desk.hpp"

#include "common/base/clock.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::walrus {
namespace {

using transfer::UploadState;

bool is_open(const transfer::UploadStatus& status) {
  return status.state == UploadState::receiving || status.state == UploadState::processing;
}

bool is_users(const transfer::UploadInfo& info) {
  return info.node == transfer::kUserNode;
}

}  // namespace

std::optional<Desk::Expected> Desk::expected(const std::string& imgid, int version) const {
  const std::lock_guard lock(mutex_);
  const auto at = expected_.find({imgid, version});
  return at == expected_.end() ? std::nullopt : std::optional(at->second);
}

/// True if an import of that version ended here, or one of a later version came: then nothing will be
/// expected any more. (One that has not ended may be just about to be.)
bool Desk::is_import_over(const std::string& imgid, int version) const {
  for (const auto& entry : inbox_.tasks()) {
    auto order = check_command(entry.command);
    if (!order || order->imgid != imgid) continue;
    if (order->operation == Operation::forget) return true;
    const bool ended = entry.finished ? order->version >= version : order->version > version;
    if (order->operation == Operation::import && ended) return true;
  }
  return false;
}

Result<> Desk::admit(transfer::UploadInfo& info) {
  Place place;
  if (auto waits = expected(info.imgid, info.version)) {
    place.expected_cmdid = waits->cmdid;
  } else if (is_users(info)) {
    place.is_over = is_import_over(info.imgid, info.version);
  }
  auto published = store_.find(info.imgid, info.version);
  if (published) place.published_digest = published->digest;
  if (!published && published.error().code != ErrorCode::not_found) return fail(published.error());
  auto cmdid = walrus::admit({info.imgid, info.version, is_users(info), info.cmdid}, place);
  if (!cmdid) return fail(cmdid.error());
  info.cmdid = *cmdid;
  return {};
}

Result<std::string> Desk::process(const transfer::ProcessInput& input, std::stop_token stop) {
  const transfer::UploadInfo& info = input.info;
  ImportJob job;
  job.imgid = info.imgid;
  job.version = info.version;
  job.cmdid = info.cmdid;
  job.digest = info.digest;
  job.format = info.format;
  job.parent = info.parent;
  job.data = input.data;
  job.name = info.uid;
  job.note = input.note;
  job.save_note = input.save_note;
  job.progress = input.progress;
  const auto begun = std::chrono::steady_clock::now();
  auto receipt = importer_.run(job, stop);
  if (!receipt) return fail(receipt.error());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
  obs::metrics().observe("educloud_walrus_import_seconds", "From the last byte to the published version",
                         took.count());
  obs::info("image.published", {{"imgid", info.imgid},
                                {"version", info.version},
                                {"cmdid", info.cmdid},
                                {"digest", receipt->digest},
                                {"bytes", receipt->size_bytes}});
  return transfer::sign_receipt(data_key_, *receipt);
}

void Desk::count_bytes(const transfer::UploadStatus& status) {
  const std::uint64_t now = status.state == UploadState::receiving ? status.bytes_done : status.info.length;
  std::uint64_t more = 0;
  {
    const std::lock_guard lock(mutex_);
    const auto [at, fresh] = received_.emplace(status.info.uid, now);
    if (!fresh && now > at->second) more = now - at->second;
    at->second = now;
    if (!is_open(status)) received_.erase(at);
  }
  if (more > 0) {
    obs::metrics().count("educloud_walrus_upload_bytes_total", "Bytes of images received",
                         static_cast<double>(more));
  }
}

void Desk::on_upload(const transfer::UploadStatus& status) {
  count_bytes(status);
  if (!is_open(status)) {
    obs::metrics().count("educloud_walrus_imports_total", "Uploads that ended, by result", 1,
                         {{"result", std::string(to_string(status.state))}});
  }
  const auto waits = expected(status.info.imgid, status.info.version);
  if (!waits || waits->cmdid != status.info.cmdid) return;
  switch (status.state) {
    case UploadState::receiving: {
      const Stage stage = status.bytes_done == 0 ? Stage::waiting : Stage::receiving;
      report(waits->tid, waits->cmdid,
             import_news(stage, status.prompt, status.bytes_done, status.bytes_total));
      return;
    }
    case UploadState::processing:
      report(waits->tid, waits->cmdid,
             import_news(Stage::processing, status.prompt, status.bytes_done, status.bytes_total));
      return;
    case UploadState::done:
      report(waits->tid, waits->cmdid, success_news("published", status.receipt));
      break;
    case UploadState::failed: report(waits->tid, waits->cmdid, failure_news(*status.error)); break;
  }
  const std::lock_guard lock(mutex_);
  const auto at = expected_.find({status.info.imgid, status.info.version});
  if (at != expected_.end() && at->second.cmdid == waits->cmdid) expected_.erase(at);
}

void Desk::report(const std::string& tid, const std::string& cmdid, News news) {
  inbox::Report out;
  out.tid = tid;
  out.cmdid = cmdid;
  out.event = news.event;
  out.at = news.at;
  out.final = news.final;
  out.progress = news.progress;
  out.bytes_done = static_cast<std::int64_t>(news.bytes_done);
  out.bytes_total = static_cast<std::int64_t>(news.bytes_total);
  out.prompt = std::move(news.prompt);
  out.error = std::move(news.error);
  out.receipt = std::move(news.receipt);
  if (out.final) {
    obs::info("command.done", {{"tid", tid},
                               {"cmdid", cmdid},
                               {"event", task::to_string(out.event)},
                               {"error", out.error ? out.error->message : ""}});
  }
  // A conflict is a command that was superseded meanwhile: nobody waits for this any more.
  if (auto ok = inbox_.report(out); !ok && ok.error().code != ErrorCode::conflict) {
    obs::error("command.not_reported", {{"tid", tid}, {"cmdid", cmdid}, {"error", ok.error().message}});
  }
}

void Desk::restore_expectations() {
  const std::lock_guard lock(mutex_);
  for (const auto& entry : inbox_.unfinished()) {
    auto order = check_command(entry.command);
    if (!order || order->operation != Operation::import) continue;
    expected_[{order->imgid, order->version}] = {order->tid, order->cmdid};
  }
}

void Desk::resume() {
  for (const auto& entry : inbox_.unfinished()) {
    auto order = check_command(entry.command);
    obs::info("command.resumed",
              {{"tid", entry.command.tid}, {"op", entry.command.op}, {"cmdid", entry.command.cmdid}});
    if (order) {
      execute(*order);
    } else {
      report(entry.command.tid, entry.command.cmdid, failure_news(order.error()));
    }
  }
}

void Desk::handle(const bus::Delivery& delivery) {
  const auto refuse = [&](const Error& error) {
    obs::warn("command.rejected", {{"key", error.key}, {"error", error.message}});
    obs::metrics().count("educloud_walrus_rejected_commands_total",
                         "Commands that went to the dead letter queue");
    delivery.settle(bus::Verdict::reject);
  };
  auto command = msg::parse<msg::Command>(delivery.body);
  if (!command) return refuse(command.error());
  if (auto ok = check_addressable(*command); !ok) return refuse(ok.error());
  auto accepted = inbox_.accept(*command);
  if (!accepted) {
    obs::error("command.not_accepted", {{"tid", command->tid}, {"error", accepted.error().message}});
    delivery.settle(bus::Verdict::requeue);
    return;
  }
  delivery.settle(bus::Verdict::ack);
  switch (*accepted) {
    case inbox::Accepted::duplicate:
    case inbox::Accepted::stale: return;
    case inbox::Accepted::expired:
      return report(command->tid, command->cmdid,
                    failure_news(inbox::expired_error(*command, SystemClock().wall_ms())));
    case inbox::Accepted::fresh: break;
  }
  obs::info("command.accepted", {{"tid", command->tid}, {"op", command->op}, {"cmdid", command->cmdid}});
  auto order = check_command(*command);
  if (!order) return report(command->tid, command->cmdid, failure_news(order.error()));
  execute(*order);
}

}  // namespace educloud::walrus
