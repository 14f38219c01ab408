#include "cc/relay/walrus_clients.hpp"

#include "common/transfer/grant.hpp"

namespace educloud::cc {
namespace {

constexpr std::int64_t kGrantSeconds = 6 * 3600;
/// A client is not used for longer, so that its grant never gets old.
constexpr std::int64_t kMaxAgeMs = 3600'000;
/// `since_ms` of a client that is used once.
constexpr std::int64_t kNotKept = -1;

}  // namespace

WalrusClients::WalrusClients(Options options, const Clock& clock)
    : options_(std::move(options)), clock_(clock) {}

WalrusClients::Lease WalrusClients::take(Key key, std::chrono::seconds patience) {
  const std::int64_t now = clock_.boot_ms();
  if (patience.count() == 0) {
    const std::lock_guard lock(mutex_);
    std::erase_if(idle_, [&](const Idle& one) { return now - one.since_ms > kMaxAgeMs; });
    for (auto it = idle_.begin(); it != idle_.end(); ++it) {
      if (it->key != key) continue;
      Lease lease(*this, std::move(key), it->since_ms, std::move(it->client));
      idle_.erase(it);
      return lease;
    }
  }
  transfer::ChunkRemote remote;
  remote.base = options_.walrus;
  remote.imgid = key.imgid;
  remote.version = key.version;
  remote.priority = key.priority;
  remote.client = options_.client;
  if (patience.count() > 0) remote.client.io_timeout = patience;
  remote.grant =
      transfer::sign_grant(options_.data_key, {key.method, transfer::version_path(key.imgid, key.version),
                                               options_.host, clock_.wall_ms() / 1000 + kGrantSeconds});
  return {*this, std::move(key), patience.count() > 0 ? kNotKept : now,
          std::make_unique<transfer::ChunkClient>(std::move(remote))};
}

void WalrusClients::give_back(Key key, std::int64_t since_ms, std::unique_ptr<transfer::ChunkClient> client) {
  const std::lock_guard lock(mutex_);
  idle_.push_front({std::move(key), since_ms, std::move(client)});
  if (idle_.size() > options_.max_idle) idle_.pop_back();
}

WalrusClients::Lease::~Lease() {
  if (client_ && since_ms_ != kNotKept) owner_->give_back(std::move(key_), since_ms_, std::move(client_));
}

}  // namespace educloud::cc
