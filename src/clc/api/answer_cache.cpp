#include "clc/api/answer_cache.hpp"

namespace educloud::clc::api {

http::Response AnswerCache::answer(const std::string& key, std::uint64_t version,
                                   const std::function<http::Response()>& make) {
  if (const auto kept = find(key, version)) return *kept;
  auto response = make();
  if (response.status == 200) keep(key, version, response);
  return response;
}

std::shared_ptr<const http::Response> AnswerCache::find(const std::string& key, std::uint64_t version) {
  const auto now = std::chrono::steady_clock::now();
  const std::lock_guard lock(mutex_);
  if (version != version_) return nullptr;
  const auto at = entries_.find(key);
  if (at == entries_.end() || now - at->second.made_at > kMaxAge) return nullptr;
  return at->second.response;
}

void AnswerCache::keep(const std::string& key, std::uint64_t version, const http::Response& response) {
  const auto* body = std::get_if<std::string>(&response.body);
  if (body == nullptr) return;
  Entry entry{std::make_shared<const http::Response>(response), std::chrono::steady_clock::now()};
  decltype(entries_) stale;  // freed without the lock
  const std::lock_guard lock(mutex_);
  if (version < version_) return;  // made before a change that somebody has seen already
  if (version > version_ || entries_.size() >= kEntries || bytes_ + body->size() > kBytes) {
    stale.swap(entries_);
    bytes_ = 0;
  }
  version_ = version;
  if (body->size() > kBytes) return;
  auto& place = entries_[key];
  if (place.response) bytes_ -= std::get<std::string>(place.response->body).size();
  bytes_ += body->size();
  place = std::move(entry);
}

}  // namespace educloud::clc::api
