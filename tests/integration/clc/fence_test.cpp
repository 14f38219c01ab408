// Servers whose node ended them for want of a lease, or was lost, and that began nowhere else.
#include "integration/clc/server_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

class Fences : public ServerTest {
 protected:
  void say_fenced(const msg::Command& run) {
    auto status = answer(run, Event::lost);
    status.final = 1;
    status.state = "stopped";
    status.errormsg = "this node had heard nothing of clc";
    tell(status);
  }
  void come_up() {
    say(Event::prepared);
    ASSERT_EQ(ops(), "image/run");
    say(Event::running);
  }
};

TEST_F(Fences, AServerThatItsNodeEndedStartsAgainThere) {
  const auto insid = run_server(import_server("wiki"));
  const auto run = last();
  ops();
  say_fenced(run);
  ASSERT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().nid, run.nid);
  EXPECT_GT(last().epoch, run.epoch);
  EXPECT_EQ(at(run.tid), "preparing/init+");
  say_fenced(run);
  EXPECT_EQ(ops(), "") << "what is said of the run before does not count";
  come_up();
  EXPECT_EQ(cloud->vm(admin, insid)->state, "running");
}

TEST_F(Fences, OneWithoutAutostartIsStoppedWithTheReason) {
  const auto insid = define(import_server("wiki"), "VS");
  ASSERT_TRUE(store->write([&](store::Sql& sql) -> Result<> {
    auto instance = store::find_instance(sql, insid);
    instance->autostart = false;
    store::update_instance(sql, *instance);
    return {};
  }));
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  bring_up();
  const auto run = last();
  ops();
  say_fenced(run);
  EXPECT_EQ(ops(), "");
  EXPECT_EQ(at(run.tid), "editing/stopped!+");
  EXPECT_THAT(cloud->task(admin, run.tid)->task.errormsg, HasSubstr("heard nothing of clc"));
}

TEST_F(Fences, OnlyWhatRunsCanBeFenced) {
  const auto insid = define(import_server("wiki"), "VS");
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  ASSERT_EQ(ops(), "image/prepare");
  say_fenced(last());
  EXPECT_EQ(at(last().tid), "preparing/init");
  EXPECT_EQ(ops(), "");
}

TEST_F(Fences, OfALostNodeThatIsBackWhatBeganNowhereElseBeginsAgain) {
  const auto insid = run_server(import_server("wiki"));
  const auto run = last();
  auto& beats = run.nid == "nc1" ? nc1_beats : nc2_beats;
  nc1_beats = nc2_beats = false;
  advance(60);
  ASSERT_TRUE(store->write([&](store::Sql& sql) -> Result<> {
    auto& engine = cloud->impl().engine;
    if (auto ok = engine.lose_node(sql, run.nid); !ok) return ok;
    return engine.relocate(sql, *store::open_task(sql, run.tid), true).map([](bool) {});
  }));
  EXPECT_EQ(ops(), "task/delete") << "there is no room for it anywhere";
  EXPECT_EQ(at(run.tid), "editing/stopped!+");
  beats = true;
  beat();
  ASSERT_TRUE(store->write([&](store::Sql& sql) { return cloud->impl().engine.node_back(sql, run.nid); }));
  ASSERT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().nid, run.nid);
  EXPECT_GT(last().epoch, run.epoch);
  come_up();
  EXPECT_EQ(cloud->vm(admin, insid)->state, "running");
}

}  // namespace
}  // namespace educloud::clc
