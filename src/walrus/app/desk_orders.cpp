// What Desk does for each kind of order.
#include "common/obs/log.hpp"
#include "common/transfer/grant.hpp"
#include "walrus/app/desk.hpp"

namespace educloud::walrus {
namespace {

using transfer::UploadState;

bool is_open(const transfer::UploadStatus& status) {
  return status.state == UploadState::receiving || status.state == UploadState::processing;
}

}  // namespace

void Desk::execute(const Order& order) {
  switch (order.operation) {
    case Operation::import: return begin_import(order);
    case Operation::blank: return make_blank(order);
    case Operation::use: return use(order);
    case Operation::prune: return prune(order);
    case Operation::remove: return remove_image(order);
    case Operation::forget: return forget(order);
  }
}

/// The answer to an order without an upload.
void Desk::end(const Order& order, const Result<>& result, std::string prompt) {
  report(order.tid, order.cmdid, result ? success_news(std::move(prompt)) : failure_news(result.error()));
}

void Desk::begin_import(const Order& order) {
  {
    const std::lock_guard lock(mutex_);
    expected_[{order.imgid, order.version}] = {order.tid, order.cmdid};
  }
  // Uploads for an earlier order of the same import: their address has ended.
  for (const auto& status : uploads_->list()) {
    const auto& info = status.info;
    const bool same_place = info.imgid == order.imgid && info.version == order.version;
    if (same_place && info.node == transfer::kUserNode && info.cmdid != order.cmdid)
      uploads_->remove(info.uid);
  }
  auto published = publisher_.receipt_of(order.imgid, order.version, order.cmdid);
  if (published) {
    // An earlier order of the same import got through, and its answer got lost.
    report(order.tid, order.cmdid, success_news("published", transfer::sign_receipt(data_key_, *published)));
    const std::lock_guard lock(mutex_);
    expected_.erase({order.imgid, order.version});
    return;
  }
  if (auto upload = uploads_->find_by_command(order.cmdid)) return on_upload(*upload);
  report(order.tid, order.cmdid, import_news(Stage::waiting, "", 0, 0));
}

/// Seconds, on the thread of the commands: it happens once in an image's life.
void Desk::make_blank(const Order& order) {
  auto receipt = publisher_.receipt_of(order.imgid, order.version, order.cmdid);
  if (!receipt) {
    receipt =
        blanks_.make(order.imgid, order.version, order.cmdid, static_cast<std::uint64_t>(order.disk_bytes));
  }
  if (!receipt) return report(order.tid, order.cmdid, failure_news(receipt.error()));
  report(order.tid, order.cmdid, success_news("published", transfer::sign_receipt(data_key_, *receipt)));
}

void Desk::use(const Order& order) {
  end(order, store_.set_current(order.imgid, order.version),
      "version " + std::to_string(order.version) + " is in use");
}

void Desk::prune(const Order& order) {
  auto current = store_.current(order.imgid);
  if (!current) return end(order, fail(current.error()), "");
  if (auto ok = check_prune(order, *current); !ok) return end(order, ok, "");
  for (int version : order.versions) {
    if (auto ok = store_.remove(order.imgid, version); !ok) return end(order, ok, "");
    obs::info("image.pruned", {{"tid", order.tid}, {"imgid", order.imgid}, {"version", version}});
  }
  on_removed_();
  end(order, {}, std::to_string(order.versions.size()) + " versions removed");
}

void Desk::remove_image(const Order& order) {
  for (const auto& status : uploads_->list()) {
    if (status.info.imgid == order.imgid && is_open(status)) uploads_->remove(status.info.uid);
  }
  const auto removed = store_.remove_image(order.imgid);
  if (removed) on_removed_();
  end(order, removed, "image removed");
}

/// Uploads that ended are kept until they expire: the user's client may still ask how it went.
void Desk::forget(const Order& order) {
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(expected_, [&](const auto& one) { return one.second.tid == order.tid; });
  }
  for (const auto& status : uploads_->list()) {
    const bool of_import = status.info.imgid == order.imgid && status.info.node == transfer::kUserNode;
    if (of_import && is_open(status)) uploads_->remove(status.info.uid);
  }
  report(order.tid, order.cmdid, deleted_news());
}

}  // namespace educloud::walrus
