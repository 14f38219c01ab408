#pragma once

#include <gtest/gtest.h>

#include <condition_variable>

#include "common/base/clock.hpp"
#include "common/transfer/grant.hpp"
#include "common/transfer/upload_record.hpp"
#include "common/transfer/upload_server.hpp"
#include "support/temp_dir.hpp"

namespace educloud::transfer {

inline const std::string kTestKey(64, 'c');
inline constexpr const char* kImage = "IMG01234567";

/// Looks every few milliseconds until `done`, for at most 20 s.
template <class Condition>
bool eventually(Condition done) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!done()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

inline std::map<std::string, std::string> parse_query(const std::string& query) {
  std::map<std::string, std::string> out;
  std::size_t at = 0;
  while (at < query.size()) {
    const auto end = std::min(query.find('&', at), query.size());
    const auto equals = query.find('=', at);
    out[query.substr(at, equals - at)] = query.substr(equals + 1, end - equals - 1);
    at = end + 1;
  }
  return out;
}

inline std::string upload_grant(int version, const std::string& node = "cc1") {
  return sign_grant(kTestKey,
                    {"PUT", version_path(kImage, version), node, SystemClock().wall_ms() / 1000 + 600});
}

/// An UploadServer whose routes are called without a network.
class UploadTest : public ::testing::Test {
 protected:
  using Headers = std::map<std::string, std::string>;

  void SetUp() override {
    options_.folder = dir_ / "uploads";
    options_.data_key = kTestKey;
    options_.reserve_bytes = 0;
    options_.processor = [](const ProcessInput& input, std::stop_token) -> Result<std::string> {
      return "receipt of " + educloud::testing::slurp(input.data);
    };
    start();
  }
  void start() {
    server_.reset();
    server_ = std::make_unique<UploadServer>(options_);
    auto ok = server_->start();
    ASSERT_TRUE(ok.has_value()) << ok.error().message;
    router_ = http::Router{};
    server_->add_routes(router_);
  }

  http::Request request(const std::string& method, const std::string& path, Headers headers) {
    http::Request out;
    out.method = method;
    out.path = path;
    out.headers["Tus-Resumable"] = "1.0.0";
    for (auto& [name, value] : headers) out.headers[name] = value;
    return out;
  }
  http::Response call(http::Request one) {
    auto match = router_.match(one.method, one.path);
    if (match.route == nullptr) return http::error_response({ErrorCode::not_found, "no route"});
    one.params = match.params;
    if (match.route->handler) return match.route->handler(one);
    auto sink = match.route->stream(one);
    if (!sink) return http::error_response(sink.error());
    return (*sink)->finish();
  }
  http::Response call(const std::string& method, const std::string& path, Headers headers = {}) {
    return call(request(method, path, std::move(headers)));
  }
  http::Response create(std::uint64_t length, const std::map<std::string, std::string>& metadata = {},
                        int version = 1) {
    auto one =
        request("POST", "/uploads",
                {{"Upload-Length", std::to_string(length)}, {"Upload-Metadata", format_metadata(metadata)}});
    one.query = parse_query(upload_grant(version));
    one.query["image"] = kImage;
    one.query["version"] = std::to_string(version);
    return call(one);
  }
  std::string created(std::uint64_t length, int version = 1) {
    auto response = create(length, {}, version);
    EXPECT_EQ(response.status, 201) << body(response);
    return response.headers["Location"];
  }
  std::unique_ptr<http::BodySink> open_patch(const std::string& location, std::uint64_t offset,
                                             std::uint64_t length) {
    auto one = request(
        "PATCH", location,
        {{"Upload-Offset", std::to_string(offset)}, {"Content-Type", "application/offset+octet-stream"}});
    one.content_length = length;
    auto match = router_.match("PATCH", location);
    one.params = match.params;
    auto sink = match.route->stream(one);
    EXPECT_TRUE(sink.has_value());
    return std::move(*sink);
  }
  http::Response patch(const std::string& location, std::uint64_t offset, std::string_view data) {
    auto sink = open_patch(location, offset, data.size());
    if (auto ok = sink->write({data.data(), data.size()}); !ok) return http::error_response(ok.error());
    return sink->finish();
  }
  std::string offset(const std::string& location) { return call("HEAD", location).headers["Upload-Offset"]; }
  nlohmann::json state(const std::string& location) {
    return nlohmann::json::parse(body(call("GET", location)), nullptr, false);
  }
  bool reaches(const std::string& location, const std::string& wanted) {
    return eventually([&] { return state(location).value("state", "") == wanted; });
  }
  static std::string body(const http::Response& response) {
    const auto* text = std::get_if<std::string>(&response.body);
    return text == nullptr ? "" : *text;
  }
  std::size_t folders() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(options_.folder), {}));
  }

  educloud::testing::TempDir dir_;
  UploadServerOptions options_;
  http::Router router_;
  std::unique_ptr<UploadServer> server_;
};

/// Lets a processor stand still until told.
class Gate {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  /// False if `stop` came first.
  bool pass(std::stop_token stop) {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    return changed_.wait(lock, stop, [this] { return open_; });
  }
  bool somebody_waits() {
    const std::lock_guard lock(mutex_);
    return waiting_ > 0;
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  bool open_ = false;
  int waiting_ = 0;
};

}  // namespace educloud::transfer
