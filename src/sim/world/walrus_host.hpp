#pragma once

#include <filesystem>
#include <map>
#include <memory>

#include "common/inbox/inbox.hpp"
#include "common/transfer/receipt.hpp"
#include "sim/bus/broker.hpp"
#include "sim/world/host.hpp"
#include "walrus/domain/commands.hpp"
#include "walrus/domain/news.hpp"

namespace educloud::sim {

/// walrus: its rules and its inbox over a store that keeps only what a version is, without its bytes.
class WalrusHost : public Host {
 public:
  struct Options {
    std::filesystem::path folder;
    std::string data_key;
  };
  struct Image {
    std::map<int, transfer::Receipt> versions;
    int current = 0;
  };
  struct Submit {
    std::string imgid;
    int version = 0;
    std::string cmdid, if_current, parent;
  };

  WalrusHost(Surroundings surroundings, Broker& broker, std::uint64_t seed, Options options)
      : Host(std::move(surroundings), "walrus", seed), broker_(broker), options_(std::move(options)) {}

  /// What stands on its disk.
  const std::map<std::string, Image>& images() const { return images_; }
  /// A version that is there from the beginning.
  transfer::Receipt seed_version(const std::string& imgid);
  /// A host's request to publish; the signed receipt. Errors: unavailable, conflict.
  Result<std::string> publish(const Submit& submit);

 protected:
  Result<> boot() override;
  void wreck() override;

 private:
  Result<std::string> publish_now(const Submit& submit);
  void handle(const bus::Delivery& delivery);
  void execute(const walrus::Order& order);
  Result<> carry_out(const walrus::Order& order);
  void report(const walrus::Order& order, walrus::News news);
  void resume();

  Broker& broker_;
  const Options options_;
  std::map<std::string, Image> images_;
  std::unique_ptr<bus::Bus> bus_;
  std::unique_ptr<inbox::Inbox> inbox_;
};

}  // namespace educloud::sim
