#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "common/http/client.hpp"
#include "common/http/server.hpp"

namespace educloud::test {

/// A directory that is gone afterwards.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "educloud-http-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Waits for what happens on a server's thread.
class Flag {
 public:
  void set() {
    std::lock_guard lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  bool wait(std::chrono::seconds deadline = std::chrono::seconds{20}) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, deadline, [this] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

/// Routes, a server on a free port of the loopback, and clients for it.
class HttpTest : public ::testing::Test {
 protected:
  void get(std::string pattern, http::Handler handler) {
    router_.add({.method = "GET", .pattern = std::move(pattern), .handler = std::move(handler)});
  }
  void post(std::string pattern, http::Handler handler, std::uint64_t limit = 1024) {
    router_.add({.method = "POST",
                 .pattern = std::move(pattern),
                 .handler = std::move(handler),
                 .body_limit = limit});
  }
  void stream(std::string pattern, http::StreamHandler handler, std::uint64_t limit = 1ull << 30) {
    router_.add({.method = "PATCH",
                 .pattern = std::move(pattern),
                 .handler = {},
                 .stream = std::move(handler),
                 .body_limit = limit});
  }
  void start() {
    server_ = std::make_unique<http::Server>(options_, std::move(router_));
    const auto started = server_->start();
    ASSERT_TRUE(started) << started.error().message;
  }
  int port() const { return server_->port(); }
  http::Client client(http::ClientOptions options = {}) const {
    return http::Client(*http::Url::parse("http://127.0.0.1:" + std::to_string(port())), std::move(options));
  }

  static http::Response text(std::string body, int status = 200) {
    http::Response response;
    response.status = status;
    response.body = std::move(body);
    return response;
  }

  http::ServerOptions options_;
  http::Router router_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace educloud::test
