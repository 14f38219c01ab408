#include "common/transfer/grant.hpp"
#include "integration/clc/cloud_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

class Push : public CloudTest {
 protected:
  void SetUp() override {
    CloudTest::SetUp();
    imgid = import("debian");
  }
  /// "node:result node:result ..." of a push.
  std::string push(const PushRequest& request) {
    const auto pushed = cloud->push_image(admin, imgid, request);
    if (!pushed) return pushed.error().message;
    std::string text;
    for (const auto& one : pushed->items) {
      text += (text.empty() ? "" : " ") + one.node + ":" + one.result;
      if (!one.tid.empty()) tids[one.node] = one.tid;
    }
    return text;
  }
  std::int64_t count(std::string_view query) {
    return *store->read([&](store::Sql& sql) -> Result<std::int64_t> { return sql.number(query); });
  }

  std::string imgid;
  std::map<std::string, std::string> tids;
};

TEST_F(Push, BringsAVersionToEachNodeAndEndsByItself) {
  EXPECT_EQ(push({0, "cc1", {}}), "nc1:started nc2:started");
  EXPECT_EQ(ops(), "image/prepare image/prepare");
  const auto first = commands.at(commands.size() - 2);
  EXPECT_EQ(first.nid, "nc1");
  EXPECT_EQ(first.priority, "prefetch");
  EXPECT_FALSE(first.runtime_option);
  EXPECT_EQ(first.source->version, 1);
  EXPECT_EQ(first.source->size_bytes, 5 << 20);
  EXPECT_EQ(first.source->disk_bytes, 100 << 20);
  EXPECT_EQ(first.source->format, "raw");
  EXPECT_THAT(first.source_grant, HasSubstr("node=nc1&"));
  EXPECT_EQ(count("SELECT COUNT(*) FROM instances"), 0) << "no VM, no memory";
  auto progress = answer(first, Event::downloading);
  progress.bytes_done = 1 << 20, progress.bytes_total = 5 << 20, progress.bytes_per_s = 123'456;
  tell(progress);
  EXPECT_EQ(at(tids["nc1"]), "preparing/downloading");
  EXPECT_EQ(to_json(*cloud->task(admin, tids["nc1"]))["bytes_per_s"], 123'456);
  EXPECT_EQ(cloud->image(admin, imgid)->tid, "") << "a push does not change the image";
  EXPECT_EQ(cloud->nodes(admin)->items[0].committed_mib, 0);
  tell(answer(first, Event::prepared));
  EXPECT_EQ(at(tids["nc1"]), "editing/deleting+");
  EXPECT_EQ(ops(), "task/delete") << "no image/run";
  say(Event::deleted);
  EXPECT_EQ(at(tids["nc1"]), "submitting/gone+");
  EXPECT_EQ(count("SELECT COUNT(*) FROM ports"), 0);
  EXPECT_EQ(at(tids["nc2"]), "preparing/init");
  EXPECT_EQ(cloud->image(admin, imgid)->state, "ready");
}

TEST_F(Push, TellsOfNodesThatNeedNothingOrCannot) {
  beat_node("nc1", {{imgid, 1, std::string(64, 'a')}});
  settle();
  EXPECT_EQ(push({0, "cc1", {}}), "nc1:present nc2:started");
  EXPECT_EQ(push({0, "", {"nc2"}}), "nc2:under_way");
  nc1_beats = false;
  nc2_beats = false;
  advance(60, false);
  // A cc that is silent makes its nodes unreachable too.
  EXPECT_THAT(push({0, "", {"nc2", "nc1", "nc2"}}), HasSubstr("nc2:under_way"));
  ASSERT_TRUE(cloud->cancel_task(admin, tids["nc2"]));
  ops();
  say(Event::deleted);
  EXPECT_EQ(push({1, "", {"nc2"}}), "nc2:down");
  EXPECT_EQ(ops(), "");
}

TEST_F(Push, RefusesWhatIsNotThere) {
  EXPECT_THAT(push({0, "", {}}), HasSubstr("'cluster' or 'nodes'"));
  EXPECT_THAT(push({0, "cc1", {"nc1"}}), HasSubstr("'cluster' or 'nodes'"));
  EXPECT_THAT(push({0, "cc9", {}}), HasSubstr("no cluster of that name"));
  EXPECT_THAT(push({0, "", {"nc9"}}), HasSubstr("no node nc9"));
  EXPECT_FALSE(cloud->push_image(admin, imgid, {0, "", {"../nc1"}}));
  EXPECT_THAT(push({7, "cc1", {}}), HasSubstr("no version 7"));
  EXPECT_EQ(cloud->push_image({"ann", false}, imgid, {0, "cc1", {}}).error().code,
            ErrorCode::permission_denied);
  EXPECT_EQ(ops(), "");
}

TEST_F(Push, ThatFailsIsTriedAgainOnTheSameNode) {
  EXPECT_EQ(push({0, "", {"nc2"}}), "nc2:started");
  ops();
  say(Event::failed, "disk full");
  EXPECT_EQ(at(tids["nc2"]), "preparing/init!");
  ASSERT_TRUE(cloud->start_task(admin, tids["nc2"]));
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().nid, "nc2");
  EXPECT_EQ(last().priority, "prefetch");
  EXPECT_THAT(cloud->prune_image(admin, imgid, {{1}, 0}).error().message, HasSubstr("in use"));
  EXPECT_THAT(cloud->delete_image(admin, imgid).error().message, HasSubstr(tids["nc2"]));
  say(Event::prepared);
  EXPECT_EQ(ops(), "task/delete");
}

TEST_F(Push, DoesNotStandInTheWayOfAModify) {
  EXPECT_EQ(push({0, "", {"nc1"}}), "nc1:started");
  EXPECT_TRUE(cloud->modify_image(admin, imgid, {}));
}

TEST_F(Push, OutlivesARestartOfClc) {
  EXPECT_EQ(push({0, "", {"nc1"}}), "nc1:started");
  ops();
  halt();
  boot();
  beat();
  say(Event::prepared);
  EXPECT_EQ(at(tids["nc1"]), "editing/deleting+");
}

TEST_F(Push, ASignedUrlIsForOneVersionAndAWhile) {
  const auto url = cloud->version_url(admin, imgid, 1, 3600);
  ASSERT_TRUE(url) << url.error().message;
  const std::string path = transfer::version_path(imgid, 1);
  EXPECT_EQ(url->url, "http://walrus:8001" + path + "/raw");
  EXPECT_EQ(url->manifest_url, "http://walrus:8001" + path + "/manifest");
  EXPECT_EQ(url->digest, std::string(64, 'a'));
  std::map<std::string, std::string> query;
  std::stringstream text(url->query);
  for (std::string pair; std::getline(text, pair, '&');)
    query[pair.substr(0, pair.find('='))] = pair.substr(pair.find('=') + 1);
  const auto now_s = clock.wall_ms() / 1000;
  EXPECT_EQ(transfer::verify_grant(kKey, "GET", path, query, now_s).value_or(""), "user");
  EXPECT_FALSE(transfer::verify_grant(kKey, "PUT", path, query, now_s));
  EXPECT_FALSE(transfer::verify_grant(kKey, "GET", transfer::version_path(imgid, 2), query, now_s));
  EXPECT_FALSE(transfer::verify_grant(kKey, "GET", path, query, now_s + 3601));
  EXPECT_EQ(cloud->version_url(admin, imgid, 2, 3600).error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->version_url(admin, imgid, 1, 10).error().key, "valid_s");
  EXPECT_EQ(cloud->version_url({"ann", false}, imgid, 1, 3600).error().code, ErrorCode::permission_denied);
}

class Lazy : public CloudTest {};

TEST_F(Lazy, IsSaidInPrepareAndRunAndForgottenAtTheNextStart) {
  const auto imgid = import("debian");
  const auto insid = define(imgid);
  ASSERT_TRUE(cloud->run_vm(admin, insid, true));
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().lazy, 1);
  EXPECT_EQ(last().priority, "user");
  const auto grant_path = "GET over " + transfer::version_path(imgid, 1);
  EXPECT_THAT(last().source_grant, HasSubstr("node=nc")) << grant_path;
  say(Event::prepared);
  EXPECT_EQ(ops(), "image/run");
  EXPECT_EQ(last().lazy, 1);
  say(Event::running);
  ASSERT_TRUE(cloud->stop_vm(admin, insid));
  ops();
  say(Event::stopped);
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().lazy, 0);
}

}  // namespace
}  // namespace educloud::clc
