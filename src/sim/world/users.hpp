#pragma once

#include <string>
#include <vector>

#include "clc/app/views.hpp"
#include "sim/world/clc_host.hpp"

namespace educloud::sim {

/// People who use the cloud, and the model of it: what each of them wants. They try again when something
/// fails, as people do, so in a healthy cloud everything ends as they want it.
class Users {
 public:
  struct Options {
    std::size_t most_desks = 4;
    std::size_t most_edits = 1;
    std::int64_t memory_mib = 1024;
    std::vector<std::string> images;
    std::vector<std::string> nodes;  ///< some desktops are pinned to one
    bool may_be_refused = false;     ///< they want more than the nodes have
  };
  enum class Wish { running, stopped, gone };
  struct Desk {
    std::string insid;
    Wish wish = Wish::stopped;
    bool temporary = false;
    bool refused = false;  ///< there was no room at the last try
    bool content = false;  ///< as wished when last looked at
  };
  struct Edit {
    std::string tid;
    bool submit = true;  ///< else it is given up
  };

  Users(Surroundings surroundings, ClcHost& clc, std::uint64_t seed, Options options)
      : world_(std::move(surroundings)), clc_(clc), rng_(seed), options_(std::move(options)) {}

  /// One of them does something.
  void act();
  /// Everybody looks at what is theirs and insists.
  void insist();
  /// From now on nobody changes their mind.
  void settle() { settled_ = true; }
  /// Everything is wanted gone.
  void leave();
  /// Everything is as wished, as clc tells it.
  bool are_content() const;
  /// What is not, for a report.
  std::string complaint() const;
  const std::vector<Desk>& desks() const { return desks_; }
  const std::vector<Edit>& edits() const { return edits_; }
  /// A call got no answer, so there may be something that nobody knows of yet.
  bool is_unsure() const { return unsure_; }

 private:
  void define(bool temporary);
  void edit();
  void tend(Desk& desk);
  void pursue(Desk& desk, const clc::VmView& view);
  void start(Desk& desk);
  void tend(Edit& edit);
  void pursue(Edit& edit, const clc::Task& task);
  /// After calls without an answer: what there is after all.
  void look_around();
  void change_mind(Desk& desk);
  /// What has come to its end is nobody's any more.
  void forget_ended();
  /// Counts a refusal; one that should not be is a defect.
  void refused(std::string_view what, const Error& error);

  Surroundings world_;
  ClcHost& clc_;
  Rng rng_;
  const Options options_;
  std::vector<Desk> desks_;
  std::vector<Edit> edits_;
  bool settled_ = false, leaving_ = false, unsure_ = false;
};

}  // namespace educloud::sim
