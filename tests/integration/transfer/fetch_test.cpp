#include <gtest/gtest.h>
#include <sys/stat.h>

#include "common/http/server.hpp"
#include "common/image/digest.hpp"
#include "common/image/version_store.hpp"
#include "common/sys/process.hpp"
#include "common/transfer/fetcher.hpp"
#include "common/transfer/raw_route.hpp"
#include "integration/transfer/cutting_proxy.hpp"
#include "unit/transfer/upload_fixture.hpp"

namespace educloud::transfer {
namespace {

/// A source with one published version, and a store to fetch it into.
class FetchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    source_ = std::move(*image::VersionStore::open(dir_ / "source"));
    target_ = std::move(*image::VersionStore::open(dir_ / "target"));
    std::string data(12 << 20, '\0');
    for (std::size_t i = 0; i < data.size() / 2; ++i) data[i] = static_cast<char>(i * 2654435761u >> 11);
    info_.image = kImage;
    info_.version = 1;
    info_.format = "raw";
    info_.size_bytes = info_.virtual_size_bytes = data.size();
    auto staged = *source_->staging("one");
    std::filesystem::copy_file(dir_.write("file", data), staged);
    info_.digest = *image::sha256_file(staged);
    ASSERT_TRUE(source_->publish(staged, info_).has_value());
    listen();
  }
  void TearDown() override { server_.reset(); }
  void listen() {
    server_.reset();
    http::Router router;
    router.add({"GET", std::string(kRawPattern), [this](const http::Request& request) {
                  auto target = check_raw_request(request, kTestKey, SystemClock().wall_ms() / 1000);
                  if (!target) return http::error_response(target.error());
                  if (relay_) {
                    if (auto answer = relay_()) return *answer;
                  }
                  asked_.push_back(std::string(request.header("Range")));
                  return serve_raw(request, *source_, *target);
                }});
    http::ServerOptions options;
    options.port = port_;
    options.threads = 1;
    server_ = std::make_unique<http::Server>(options, std::move(router));
    ASSERT_TRUE(server_->start().has_value());
    port_ = server_->port();
  }
  FetchRequest request(int port) {
    FetchRequest out{*http::Url::parse("http://127.0.0.1:" + std::to_string(port))};
    out.grant =
        sign_grant(kTestKey, {"GET", raw_path(kImage, 1), "nc1", SystemClock().wall_ms() / 1000 + 600});
    out.imgid = kImage;
    out.version = 1;
    out.digest = info_.digest;
    out.size_bytes = info_.size_bytes;
    out.format = "raw";
    out.stall_timeout = std::chrono::seconds(30);
    return out;
  }
  void expect_fetched() {
    auto found = target_->find(kImage, 1);
    ASSERT_TRUE(found.has_value()) << found.error().message;
    const auto file = target_->machine_path(kImage, 1);
    EXPECT_EQ(*image::sha256_file(file), info_.digest);
    EXPECT_TRUE(std::filesystem::is_empty(dir_ / "target/tmp/staging"));
    struct stat status {};
    ASSERT_EQ(::stat(file.c_str(), &status), 0);
    EXPECT_LT(static_cast<std::uint64_t>(status.st_blocks) * 512, info_.size_bytes * 3 / 4)
        << "zeros are holes";
  }

  educloud::testing::TempDir dir_;
  std::unique_ptr<image::VersionStore> source_, target_;
  image::VersionInfo info_;
  std::unique_ptr<http::Server> server_;
  int port_ = 0;
  std::vector<std::string> asked_;
  std::function<std::optional<http::Response>()> relay_;
};

TEST_F(FetchTest, VersionArrivesAndIsNotFetchedTwice) {
  auto ok = fetch_version(*target_, request(port_));
  ASSERT_TRUE(ok.has_value()) << ok.error().message;
  expect_fetched();
  ASSERT_TRUE(fetch_version(*target_, request(port_)).has_value());
  EXPECT_EQ(asked_.size(), 1u);
}

TEST_F(FetchTest, CutConnectionsAreResumedWhereTheyWere) {
  CuttingProxy proxy(port_, {100, 2'000'000, 5'000'000});
  auto ok = fetch_version(*target_, request(proxy.port()));
  ASSERT_TRUE(ok.has_value()) << ok.error().message;
  expect_fetched();
  EXPECT_GE(proxy.cuts(), 3);
  EXPECT_TRUE(asked_.back().starts_with("bytes=")) << asked_.back();
}

TEST_F(FetchTest, RestartedSourceAndRestartedFetcherContinue) {
  const auto owner = std::make_unique<std::stop_source>();  // on the stack GCC 12 warns without reason
  std::stop_source& stop = *owner;
  auto slow = request(port_);
  auto cut = fetch_version(
      *target_, slow,
      [&](const Progress& progress) {
        if (progress.bytes_done > 0) stop.request_stop();
      },
      stop.get_token());
  ASSERT_FALSE(cut.has_value());
  EXPECT_EQ(cut.error().code, ErrorCode::cancelled);
  EXPECT_FALSE(target_->find(kImage, 1).has_value());
  listen();
  asked_.clear();
  auto ok = fetch_version(*target_, request(port_));
  ASSERT_TRUE(ok.has_value()) << ok.error().message;
  expect_fetched();
  ASSERT_EQ(asked_.size(), 1u);
  EXPECT_TRUE(asked_[0].starts_with("bytes=")) << asked_[0];
}

TEST_F(FetchTest, RelayThatFetchesItselfIsWaitedFor) {
  std::atomic<int> polls = 0;
  relay_ = [&]() -> std::optional<http::Response> {
    if (++polls > 2) return std::nullopt;
    auto response =
        http::json_response({{"state", "fetching"}, {"bytes_done", polls * 10}, {"bytes_total", 100}}, 503);
    response.headers["Retry-After"] = "1";
    return response;
  };
  std::vector<std::string> prompts;
  auto ok = fetch_version(*target_, request(port_),
                          [&](const Progress& progress) { prompts.push_back(progress.prompt); });
  ASSERT_TRUE(ok.has_value()) << ok.error().message;
  expect_fetched();
  EXPECT_EQ(prompts.front(), "waiting for the relay");
  EXPECT_EQ(prompts.back(), "downloading");
}

TEST_F(FetchTest, RelayThatCannotIsBelieved) {
  relay_ = [] {
    return http::json_response(
        {{"state", "failed"}, {"error", {{"code", "exhausted"}, {"message", "cc1 is full"}}}}, 503);
  };
  auto refused = fetch_version(*target_, request(port_));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::exhausted);
  EXPECT_EQ(refused.error().message, "cc1 is full");
}

TEST_F(FetchTest, OtherBytesThanOrderedAreRefused) {
  auto wrong = request(port_);
  wrong.digest = std::string(64, '0');  // the source's ETag says otherwise
  EXPECT_EQ(fetch_version(*target_, wrong).error().code, ErrorCode::corrupt);
  // A source that lies in its ETag is found out by the hash.
  relay_ = [&]() -> std::optional<http::Response> {
    http::Response response;
    response.headers["ETag"] = "\"" + info_.digest + "\"";
    response.body = std::string(info_.size_bytes, 'x');
    return response;
  };
  auto refused = fetch_version(*target_, request(port_));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::corrupt) << refused.error().message;
  EXPECT_TRUE(std::filesystem::is_empty(dir_ / "target/tmp/staging"));
  EXPECT_FALSE(target_->find(kImage, 1).has_value());
  auto short_one = request(port_);
  short_one.size_bytes = 5;
  EXPECT_EQ(fetch_version(*target_, short_one).error().code, ErrorCode::corrupt);
}

TEST_F(FetchTest, BadGrantEndsAtOnce) {
  auto one = request(port_);
  one.grant = "node=nc1&expires=99&sig=" + std::string(64, '0');
  EXPECT_EQ(fetch_version(*target_, one).error().code, ErrorCode::permission_denied);
  one = request(port_);
  one.version = 2;
  one.grant = sign_grant(kTestKey, {"GET", raw_path(kImage, 2), "nc1", SystemClock().wall_ms() / 1000 + 600});
  EXPECT_EQ(fetch_version(*target_, one).error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace educloud::transfer
