#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "common/http/server.hpp"
#include "nc/app/cc_disks.hpp"

namespace educloud::nc {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const json kOpen = {
    {"state", "open"}, {"portal", "10.0.0.1:3260"}, {"iqn", "iqn.2026-11.educloud:VS0000beef"},
    {"lun", 1},        {"user", "VS0000beef"},      {"secret", "0123456789abcdef"}};

/// A cc that says what it is told to say, one answer after the other.
class PlayedCc : public ::testing::Test {
 protected:
  PlayedCc() {
    http::Router router;
    const auto answer = [this](const http::Request& request) {
      const std::lock_guard lock(mutex_);
      asked_.push_back(request.method + " " + request.path);
      bodies_.push_back(request.body);
      auto next = answers_.front();
      if (answers_.size() > 1) answers_.pop_front();
      return next;
    };
    for (const char* what : {"/open", "/close", "/submit"})
      router.add(
          {.method = "POST", .pattern = "/disks/{insid}/{epoch}" + std::string(what), .handler = answer});
    router.add({.method = "DELETE", .pattern = "/disks/{insid}/{epoch}", .handler = answer});
    server_.emplace(http::ServerOptions{}, std::move(router));
    auto started = server_->start();
    if (!started) std::abort();
    disks_ = connect(std::chrono::seconds{60});
  }
  std::unique_ptr<CcDisks> connect(std::chrono::milliseconds patience) const {
    const auto url = "http://127.0.0.1:" + std::to_string(server_->port());
    return make_cc_disks({.cc = *http::Url::parse(url), .patience = patience, .close_patience = patience});
  }
  ~PlayedCc() override { server_->stop(); }

  void says(std::vector<http::Response> answers) { answers_ = {answers.begin(), answers.end()}; }
  static http::Response refusal(ErrorCode code) { return http::error_response({code, "because", {}}); }
  static http::Response working(int done) {
    return http::json_response({{"state", "working"}, {"bytes_done", done}, {"bytes_total", 9}}, 202);
  }
  CcDisks::Leave leave() const { return {*InstanceId::parse("VS0000beef"), 7, "node=nc1&expires=1&sig=x"}; }
  Result<CcDisks::Opened> open() {
    CcDisks::Opening request;
    request.leave = leave();
    request.source = {"IMG000000db", 2, std::string(64, 'd'), 5, 1 << 20, "raw"};
    request.source_grant = "leave";
    return disks_->open(request, [this](auto done, auto) { told_.push_back(done); }, {});
  }

  std::mutex mutex_;
  std::deque<http::Response> answers_;
  std::vector<std::string> asked_, bodies_;
  std::vector<std::uint64_t> told_;
  std::optional<http::Server> server_;
  std::unique_ptr<CcDisks> disks_;
};

TEST_F(PlayedCc, IsAskedUntilTheDiskIsOpen) {
  says({refusal(ErrorCode::unavailable), working(3), working(6), http::json_response(kOpen)});
  const auto opened = open();
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(opened->disk, (IscsiDisk{"10.0.0.1", 3260, "iqn.2026-11.educloud:VS0000beef", 1, "VS0000beef"}));
  EXPECT_EQ(opened->secret, "0123456789abcdef");
  EXPECT_THAT(told_, ElementsAre(3, 6));
  EXPECT_EQ(asked_.size(), 4u);
  EXPECT_EQ(asked_.front(), "POST /disks/VS0000beef/7/open");
  EXPECT_EQ(json::parse(bodies_.front())["disk_bytes"], 1 << 20);
}

TEST_F(PlayedCc, WhatIsNoTargetIsNotGivenToQemu) {
  const std::vector<std::pair<const char*, json>> lies = {{"portal", "evil.example:3260"},
                                                          {"portal", "10.0.0.1"},
                                                          {"portal", "10.0.0.1:0"},
                                                          {"portal", "10.0.0.1:99999"},
                                                          {"portal", "10.0.0.1:3260,x"},
                                                          {"iqn", "iqn.x/../y"},
                                                          {"iqn", "file:/etc/passwd"},
                                                          {"user", "a,b=c"},
                                                          {"secret", "with \"quote\"..."},
                                                          {"secret", "short"},
                                                          {"lun", 300},
                                                          {"lun", "1"}};
  for (const auto& [key, value] : lies) {
    auto lie = kOpen;
    lie[key] = value;
    says({http::json_response(lie)});
    EXPECT_FALSE(open()) << key << " " << value;
  }
  auto v6 = kOpen;
  v6["portal"] = "[fd00::1]:3260";
  says({http::json_response(v6)});
  const auto opened = open();
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->disk.host, "fd00::1");
}

TEST_F(PlayedCc, ADiskOverNbdHasAKey) {
  json nbd = {
      {"state", "open"}, {"mode", "nbd"},      {"portal", "10.0.0.1:10900"},    {"export", "VS0000beef"},
      {"lun", 1},        {"user", "educloud"}, {"secret", std::string(64, 'a')}};
  says({http::json_response(nbd)});
  const auto opened = open();
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(opened->nbd, (NbdDisk{"10.0.0.1", 10900, "VS0000beef", "educloud"}));
  for (const char* key : {"export", "user"}) {
    auto lie = nbd;
    lie[key] = "a,file.filename=/etc/shadow";
    says({http::json_response(lie)});
    EXPECT_FALSE(open()) << key;
  }
  nbd.erase("export");
  says({http::json_response(nbd)});
  EXPECT_FALSE(open());
}

TEST_F(PlayedCc, ARefusalIsFinalAndAStandstillEndsInTime) {
  says({refusal(ErrorCode::conflict)});
  EXPECT_EQ(open().error().code, ErrorCode::conflict);
  EXPECT_EQ(asked_.size(), 1u);
  disks_ = connect(std::chrono::milliseconds{400});
  says({working(0)});
  const auto stuck = open();
  ASSERT_FALSE(stuck);
  EXPECT_EQ(stuck.error().code, ErrorCode::unavailable);
  EXPECT_THAT(stuck.error().message, HasSubstr("it gets nowhere"));
  says({refusal(ErrorCode::permission_denied)});
  EXPECT_EQ(disks_->close(leave(), {}).error().code, ErrorCode::permission_denied);
}

TEST_F(PlayedCc, SubmitsAndRemoves) {
  says({working(1), http::json_response({{"state", "submitted"}, {"receipt", "r"}})});
  CcDisks::Submission request;
  request.leave = leave();
  request.imgid = "IMG000000dc";
  request.version = 3;
  request.cmdid = "c";
  auto receipt = disks_->submit(request, [](auto, auto) {}, {});
  ASSERT_TRUE(receipt) << receipt.error().message;
  EXPECT_EQ(*receipt, "r");
  says({http::json_response({{"state", "submitted"}})});
  EXPECT_EQ(disks_->submit(request, [](auto, auto) {}, {}).error().code, ErrorCode::corrupt);
  says({http::json_response({{"state", "removed"}})});
  EXPECT_TRUE(disks_->remove(leave(), {}));
  EXPECT_EQ(asked_.back(), "DELETE /disks/VS0000beef/7");
}

}  // namespace
}  // namespace educloud::nc
