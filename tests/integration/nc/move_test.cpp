#include <gmock/gmock.h>

#include "common/sys/process.hpp"
#include "integration/nc/libvirt_guest.hpp"
#include "integration/nc/reading_guest.hpp"

namespace educloud::nc {
namespace {

/// A guest that says something every 20 ms, on one of two libvirtds, with an overlay of its own on each.
class MovingGuest : public LibvirtGuest {
 protected:
  void SetUp() override {
    LibvirtGuest::SetUp();
    ASSERT_TRUE(other_libvirtd_.start());
    other_ = make_libvirt_hypervisor({.uri = other_libvirtd_.uri(), .accel = "tcg"});
    ASSERT_TRUE(other_->start(other_events_.handler()));
    ASSERT_TRUE(eventually([&] { return other_->list().has_value(); }));
    here_ = at(shared_->directory() / "here", display_port_, web_port_);
    there_ = at(other_libvirtd_.directory() / "there", test::free_port(), test::free_port());
  }
  VmSpec at(const std::filesystem::path& folder, int display_port, int web_port) {
    std::filesystem::create_directories(folder);
    auto made = spec();
    std::ofstream(folder / "base.raw", std::ios::binary) << reading_guest_disk();
    EXPECT_TRUE(
        sys::run_checked({.argv = {"qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b",
                                   (folder / "base.raw").string(), (folder / "overlay.qcow2").string()}}));
    made.disk = {{folder / "overlay.qcow2", "qcow2"}, {folder / "base.raw", "raw"}};
    made.console_log = folder / "console.log";
    std::filesystem::remove(made.console_log);
    made.display_port = display_port;
    made.web_port = web_port;
    return made;
  }
  /// Both ends use the same sockets: no tunnel in between.
  MovePlaces places(const VmSpec& of) const {
    const auto folder = of.console_log.parent_path();
    return {.folder = folder,
            .memory = there_.console_log.parent_path() / "memory",
            .disks = there_.console_log.parent_path() / "disks"};
  }
  bool goes_on(const VmSpec& vm) {
    const auto before = console(vm).size();
    return eventually([&] { return console(vm).size() > before + 5; });
  }

  OwnLibvirtd other_libvirtd_;
  Events other_events_;
  std::unique_ptr<Hypervisor> other_;
  VmSpec here_, there_;
};

TEST_F(MovingGuest, GoesOnElsewhere) {
  ASSERT_TRUE(hypervisor_->define_and_start(here_));
  ASSERT_TRUE(goes_on(here_));
  const auto received = other_->receive(there_, places(there_));
  ASSERT_TRUE(received) << received.error().message;
  EXPECT_EQ(*other_->state(there_.insid), VmState::paused);
  EXPECT_FALSE(*other_->has_arrived(there_.insid));
  EXPECT_EQ(other_->take_over(there_.insid).error().code, ErrorCode::unavailable);
  std::uint64_t memory = 0;
  const auto moved = [&](const MoveProgress& now) {
    if (now.step == MoveStep::memory) memory = std::max(memory, now.done);
  };
  const auto sent = hypervisor_->send_away(here_.insid, places(here_), moved, {});
  ASSERT_TRUE(sent) << sent.error().message;
  EXPECT_GT(memory, 0u);
  EXPECT_EQ(*hypervisor_->state(here_.insid), VmState::paused);
  EXPECT_TRUE(eventually([&] { return other_->has_arrived(there_.insid).value_or(false); }));
  EXPECT_EQ(console(there_), "");  // until it is told to
  for (int i = 0; i < 2; ++i) {
    const auto taken = other_->take_over(there_.insid);
    ASSERT_TRUE(taken) << taken.error().message;
  }
  EXPECT_TRUE(goes_on(there_));
  ASSERT_TRUE(hypervisor_->destroy(here_.insid));
  EXPECT_EQ(console(there_).find("up"), std::string::npos) << "it booted anew";
  // A restart of it there does not wait for anybody.
  const auto recipe = other_->recipe(there_.insid);
  ASSERT_TRUE(recipe);
  EXPECT_EQ(recipe->find("-incoming"), std::string::npos);
  EXPECT_TRUE(other_->destroy(there_.insid));
}

TEST_F(MovingGuest, StaysWhereItWasWhenTheOtherSideEnds) {
  ASSERT_TRUE(hypervisor_->define_and_start(here_));
  ASSERT_TRUE(goes_on(here_));
  ASSERT_TRUE(other_->receive(there_, places(there_)));
  const auto cut = [&](const MoveProgress& now) {
    if (now.step == MoveStep::memory) (void)other_->destroy(there_.insid);
  };
  const auto sent = hypervisor_->send_away(here_.insid, places(here_), cut, {});
  ASSERT_FALSE(sent);
  for (int i = 0; i < 2; ++i) {
    const auto kept = hypervisor_->keep_here(here_.insid);
    ASSERT_TRUE(kept) << kept.error().message;
  }
  EXPECT_TRUE(goes_on(here_));
  EXPECT_TRUE(eventually([&] { return *hypervisor_->state(here_.insid) == VmState::running; }));
  EXPECT_EQ(other_->take_over(there_.insid).error().code, ErrorCode::not_found);
  // And it can still go, the next time.
  std::filesystem::remove(there_.console_log);
  ASSERT_TRUE(other_->receive(there_, places(there_)));
  const auto again = hypervisor_->send_away(here_.insid, places(here_), {}, {});
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_TRUE(eventually([&] { return other_->take_over(there_.insid).has_value(); }));
  EXPECT_TRUE(goes_on(there_));
  EXPECT_TRUE(other_->destroy(there_.insid));
}

TEST_F(MovingGuest, CanBeKeptAfterAllOfItIsThere) {
  ASSERT_TRUE(hypervisor_->define_and_start(here_));
  ASSERT_TRUE(goes_on(here_));
  ASSERT_TRUE(other_->receive(there_, places(there_)));
  const auto sent = hypervisor_->send_away(here_.insid, places(here_), {}, {});
  ASSERT_TRUE(sent) << sent.error().message;
  ASSERT_TRUE(other_->destroy(there_.insid));
  ASSERT_TRUE(hypervisor_->keep_here(here_.insid));
  EXPECT_TRUE(goes_on(here_));
  std::stop_source stopped;
  ASSERT_TRUE(other_->receive(there_, places(there_)));
  const auto stop = [&](const MoveProgress&) { stopped.request_stop(); };
  EXPECT_EQ(hypervisor_->send_away(here_.insid, places(here_), stop, stopped.get_token()).error().code,
            ErrorCode::cancelled);
  ASSERT_TRUE(hypervisor_->keep_here(here_.insid));
  EXPECT_TRUE(goes_on(here_));
  EXPECT_TRUE(other_->destroy(there_.insid));
}

}  // namespace
}  // namespace educloud::nc
