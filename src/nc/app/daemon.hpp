#pragma once

#include <memory>

#include "nc/app/config.hpp"

namespace educloud::nc {

/// The whole node controller, wired.
class Daemon {
 public:
  explicit Daemon(Config config);
  ~Daemon();

  /// Errors: what an operator must put right (key, state directory, prefix, port, KVM demanded but not
  /// working).
  Result<> start();
  /// Work under way is interrupted and redone after the next start; VMs run on. Idempotent.
  void stop();
  int port() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::nc
