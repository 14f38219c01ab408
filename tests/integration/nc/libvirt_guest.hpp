#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <fstream>
#include <functional>
#include <mutex>
#include <thread>

#include "integration/bus/test_broker.hpp"
#include "integration/nc/own_libvirtd.hpp"
#include "nc/hypervisor/libvirt_hypervisor.hpp"

namespace educloud::nc {

inline constexpr std::chrono::seconds kPatience{30};

/// Collects events; waits for one with a deadline.
class Events {
 public:
  OnVmEvent handler() {
    return [this](const VmEvent& event) {
      std::lock_guard lock(mutex_);
      events_.push_back(event);
      changed_.notify_all();
    };
  }
  /// True once an event of `kind` about `insid` has come since the last `forget`.
  bool wait(VmEvent::Kind kind, const std::string& insid = {}, int count = 1) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] {
      return std::count_if(events_.begin(), events_.end(), [&](const VmEvent& event) {
               return event.kind == kind && event.insid == insid;
             }) >= count;
    });
  }
  void forget() {
    std::lock_guard lock(mutex_);
    events_.clear();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<VmEvent> events_;
};

/// True once `condition` holds.
inline bool eventually(const std::function<bool()>& condition, std::chrono::seconds patience = kPatience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (std::chrono::steady_clock::now() < deadline) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  }
  return false;
}

/// Real guests under TCG, on a libvirtd of the test's own.
class LibvirtGuest : public ::testing::Test {
 protected:
  // One for all: its first look at QEMU's abilities takes seconds.
  static void SetUpTestSuite() {
    if (!OwnLibvirtd::is_possible()) return;
    shared_ = std::make_unique<OwnLibvirtd>();
    if (!shared_->start()) shared_.reset();
  }
  static void TearDownTestSuite() { shared_.reset(); }
  void SetUp() override {
    ASSERT_TRUE(OwnLibvirtd::is_possible()) << "run as root, with scripts/packages/run installed";
    ASSERT_NE(shared_, nullptr) << "libvirtd did not start";
    connect();
  }
  void TearDown() override {
    if (!hypervisor_) return;
    auto left = hypervisor_->list();
    ASSERT_TRUE(left);
    for (const auto& vm : *left) EXPECT_TRUE(hypervisor_->destroy(vm.insid));
  }
  void connect() {
    hypervisor_ = make_libvirt_hypervisor({.uri = shared_->uri(), .accel = "tcg"});
    ASSERT_TRUE(hypervisor_->start(events_.handler()));
    ASSERT_TRUE(eventually([&] { return hypervisor_->list().has_value(); }))
        << hypervisor_->list().error().message;
  }

  /// A disk whose boot sector writes "up" to the serial port and halts for ever.
  VmSpec spec(const std::string& insid = "VD0000beef") {
    const auto folder = shared_->directory() / insid;
    std::filesystem::create_directories(folder);
    std::string disk(1 << 20, '\0');
    constexpr unsigned char kCode[] = {0xfa, 0xba, 0xf8, 0x03, 0xb0, 'u', 0xee,
                                       0xb0, 'p',  0xee, 0xf4, 0xeb, 0xfd};
    std::copy(std::begin(kCode), std::end(kCode), disk.begin());
    disk[510] = '\x55';
    disk[511] = '\xaa';
    std::ofstream(folder / "disk.raw", std::ios::binary) << disk;
    VmSpec made;
    made.insid = *InstanceId::parse(insid);
    made.tid = *TaskId::parse("IMG00000001:IMG00000001:" + insid);
    made.cmdid = "01890000-0000-7000-8000-000000000001";
    made.memory_mib = 32;
    made.disk = {{folder / "disk.raw", "raw"}};
    made.console_log = folder / "console.log";
    std::filesystem::remove(made.console_log);
    made.mac = mac_of(made.insid);
    made.display_address = "127.0.0.1";
    made.display_port = display_port_;
    made.display_password = "secret";
    made.web_address = "127.0.0.1";
    made.web_port = web_port_;
    return made;
  }
  static std::string console(const VmSpec& of) {
    std::ifstream file(of.console_log);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  static inline std::unique_ptr<OwnLibvirtd> shared_;
  Events events_;
  std::unique_ptr<Hypervisor> hypervisor_;
  const int display_port_ = test::free_port(), web_port_ = test::free_port();
};

}  // namespace educloud::nc
