#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "clc/app/cloud.hpp"
#include "clc/store/store.hpp"
#include "sim/bus/broker.hpp"
#include "sim/world/host.hpp"

namespace educloud::sim {

/// Who may do everything in the simulated cloud.
inline const clc::Principal kAdmin{"admin", true};

/// clc: its store, use cases, engine, relay, consumers and ticker, without HTTP and threads.
class ClcHost : public Host {
 public:
  struct Options {
    std::filesystem::path folder;  ///< the database is there
    clc::CloudOptions cloud;
  };
  ClcHost(Surroundings surroundings, Broker& broker, std::uint64_t seed, Options options);
  ~ClcHost() override;

  /// An API call. nullopt: no answer came (it is down, or was killed meanwhile): it may be done or not.
  template <class F>
  auto call(F use_case) -> std::optional<decltype(use_case(std::declval<clc::Cloud&>()))> {
    std::optional<decltype(use_case(std::declval<clc::Cloud&>()))> answer;
    if (is_paused()) return answer;
    run([&] {
      auto result = use_case(cloud());
      crash_point();
      answer = std::move(result);
    });
    return answer;
  }
  clc::Cloud& cloud();
  /// For checks; only while it is up.
  clc::store::Store& store();

 protected:
  Result<> boot() override;
  void wreck() override;

 private:
  struct Parts;
  Broker& broker_;
  const Options options_;
  std::unique_ptr<Parts> parts_;
};

/// A new database with `clusters` and (node, cluster) registered and an account for kAdmin.
Result<> make_clc_database(const std::filesystem::path& folder, const std::vector<std::string>& clusters,
                           const std::vector<std::pair<std::string, std::string>>& nodes);

}  // namespace educloud::sim
