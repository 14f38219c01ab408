#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <latch>

#include "common/sys/pause.hpp"
#include "common/sys/signals.hpp"
#include "common/sys/thread_pool.hpp"

namespace educloud::sys {
namespace {

TEST(Pause, EndsEarlyWhenItIsAskedTo) {
  EXPECT_TRUE(pause(std::chrono::milliseconds{1}));
  std::stop_source stop;
  const std::jthread asks([&] { stop.request_stop(); });
  EXPECT_FALSE(pause(std::chrono::hours{1}, stop.get_token()));
}

TEST(ThreadPool, RunsEveryJob) {
  std::atomic<int> ran{0};
  ThreadPool pool({.name = "test", .threads = 3, .queue_limit = 100});
  std::latch all(50);
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(pool.submit([&](std::stop_token) {
      ++ran;
      all.count_down();
    }));
  }
  all.wait();
  EXPECT_EQ(ran, 50);
}

TEST(ThreadPool, RefusesWhenTheQueueIsFull) {
  std::latch begun(1), go_on(1);
  ThreadPool pool({.name = "test", .threads = 1, .queue_limit = 2});
  ASSERT_TRUE(pool.submit([&](std::stop_token) {
    begun.count_down();
    go_on.wait();
  }));
  begun.wait();
  EXPECT_TRUE(pool.submit([](std::stop_token) {}));
  EXPECT_TRUE(pool.submit([](std::stop_token) {}));
  EXPECT_EQ(pool.load(), 3U);
  const auto refused = pool.submit([](std::stop_token) {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::exhausted);
  go_on.count_down();
}

TEST(ThreadPool, StopAsksRunningJobsAndDropsWaitingOnes) {
  std::latch begun(1);
  std::atomic<bool> was_stopped{false}, second_ran{false};
  ThreadPool pool({.name = "test", .threads = 1, .queue_limit = 2});
  ASSERT_TRUE(pool.submit([&](std::stop_token stop) {
    begun.count_down();
    while (!stop.stop_requested()) std::this_thread::yield();
    was_stopped = true;
  }));
  ASSERT_TRUE(pool.submit([&](std::stop_token) { second_ran = true; }));
  begun.wait();
  pool.stop();
  EXPECT_TRUE(was_stopped);
  EXPECT_FALSE(second_ran);
  EXPECT_EQ(pool.submit([](std::stop_token) {}).error().code, ErrorCode::cancelled);
  pool.stop();
}

TEST(ThreadPool, AnExceptionEndsTheJobAndNotTheThread) {
  std::latch told(1), later(1);
  std::string text;
  ThreadPool pool(
      {.name = "test", .threads = 1, .queue_limit = 8, .on_exception = [&](std::string_view what) {
         text = what;
         told.count_down();
       }});
  ASSERT_TRUE(pool.submit([](std::stop_token) { throw std::runtime_error("broken job"); }));
  ASSERT_TRUE(pool.submit([&](std::stop_token) { later.count_down(); }));
  told.wait();
  later.wait();
  EXPECT_EQ(text, "broken job");
}

TEST(Signals, AreWaitedFor) {
  sigset_t before;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &before);
  block_stop_signals();
  EXPECT_EQ(wait_for_stop_signal(std::chrono::milliseconds(1)), std::nullopt);
  raise_stop_signal();
  EXPECT_EQ(wait_for_stop_signal(), SIGTERM);
  ::kill(::getpid(), SIGINT);
  EXPECT_EQ(wait_for_stop_signal(std::chrono::seconds(30)), SIGINT);
  const auto fd = stop_signal_fd();
  ASSERT_TRUE(fd);
  raise_stop_signal();
  std::array<char, 128> info{};  // signalfd_siginfo
  EXPECT_EQ(::read(fd->get(), info.data(), info.size()), 128);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace
}  // namespace educloud::sys
