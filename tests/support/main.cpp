#include <gmock/gmock.h>

#include <csignal>

/// The tests' main() in place of GTest's: what runs in them are parts of the daemons, and every daemon
/// ignores SIGPIPE (sys::block_stop_signals), so that a peer that dies is an error of write(2) and not the
/// end of the program.
int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
