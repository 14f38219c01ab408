#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "clc/domain/ledger.hpp"
#include "clc/domain/lesson.hpp"
#include "clc/domain/types.hpp"

/// What the API shows, and its JSON. Times are unix milliseconds, 0 = never.
namespace educloud::clc {

struct PageRequest {
  int limit = 100;     ///< 1..500
  std::string cursor;  ///< `next` of the page before; empty: from the start
};

template <class T>
struct Page {
  std::vector<T> items;
  std::string next;  ///< empty: this was the last page
};

struct Session {
  std::string token;  ///< shown once; only its hash is stored
  std::int64_t expires_at = 0;
  Principal who;
};

struct ImageView {
  Image image;
  std::string state;                                    ///< importing | building | ready | failed | deleting
  std::string tid;                                      ///< the open task that changes it, if there is one
  std::string database_state;                           ///< making | ready; empty: it has no disk for data
  std::int64_t size_bytes = 0, virtual_size_bytes = 0;  ///< of the version in use
};

/// Where a user sends the file: tus 1.0 creation at `url` + "?" + `query`, with `metadata`.
struct UploadTarget {
  std::string url;    ///< ".../uploads"
  std::string query;  ///< image=...&version=...&node=user&expires=...&sig=...
  std::string cmdid;  ///< goes into Upload-Metadata
  std::string format;
};

struct TaskView {
  Task task;
  std::string image_name, instance_name;
  int queue_place = 0;  ///< in its node's boot queue, 1 is next; 0: does not wait there
  int queue_length = 0;
  std::string queue_reason;
};

struct ImageCreated {
  std::string imgid;
  std::string tid;
  UploadTarget upload;
};

struct VersionView {
  Version version;
  bool current = false;
  std::vector<std::string> used_by;  ///< instances
};

struct VmView {
  Instance instance;
  std::string image_name;
  std::string
      state;  ///< defined, or the task's: preparing, booting, running, stopped, submitting, deleting, failed
  std::optional<TaskView> task;  ///< the open one
  std::optional<Access> access;  ///< while it has ports
  std::string folder_protocol;   ///< its own, its OS type's if it has none
  msg::Limits limits;            ///< what it may take: its own, its type's where it has none
  std::string hostname, ip;      ///< as its guest agent tells; empty: unknown
};

struct SnapshotView {
  Snapshot snapshot;
  std::string state;  ///< taking | ready | failed | restoring | deleting | deleted
  std::string tid;    ///< the task of its VM; empty: that has none
};

struct NodeView {
  std::string host, cluster;
  bool registered = true, alive = false;
  NodeState state = NodeState::enabled;
  std::int64_t lost_at = 0;  ///< since when it is lost; 0: it is not
  std::int64_t lease_epoch = 0;
  std::int64_t age_ms = -1;  ///< since the last heartbeat, which renews its lease; -1: none since clc started
  std::int64_t started_at = 0, booted_at = 0;  ///< of its daemon and its host; 0: not told
  std::string hypervisor, version, address;
  int cpus = 0;
  double cpu_usage = 0;
  std::int64_t mem_mib = 0, mem_usage_mib = 0, disk_mib = 0, disk_usage_mib = 0;
  std::int64_t committed_mib = 0;
  int committed_cpus = 0;
  std::vector<std::string> warnings;
  nlohmann::json vms = nlohmann::json::array();     ///< as the hypervisor reports them
  nlohmann::json images = nlohmann::json::array();  ///< versions in its cache
};

struct ClusterView {
  std::string host;
  std::string database_mode;  ///< iscsi | nbd | copy
  bool alive = false;
  std::int64_t age_ms = -1;      ///< since its cc was heard of; -1: not since clc started
  std::string version, address;  ///< address: "host:port" of its data port
  int nodes = 0, nodes_alive = 0;
};

struct StatusView {
  std::string version;
  std::int64_t started_at = 0;
  bool broker_ready = false;
  int images = 0, instances = 0, open_tasks = 0, failed_tasks = 0, running_vms = 0;
  int nodes = 0, nodes_alive = 0;
  std::int64_t outbox = 0;  ///< messages the broker has not confirmed yet
  std::int64_t dead_letters = 0;
  std::int64_t backup_at = 0;  ///< the last one
  std::vector<ClusterView> clusters;
  std::string walrus_url;
};

/// What became of one node's part of a push.
struct PushItem {
  std::string node;
  std::string result;  ///< started | under_way | present | down | disabled | no_room
  std::string tid;     ///< started, under_way: the task
  std::string reason;  ///< otherwise, for a person
};
struct PushView {
  std::string imgid;
  int version = 0;
  std::vector<PushItem> items;  ///< by node name
};

/// Leave to read one version for a while, for anything that speaks HTTP: GET url + "?" + query.
struct VersionUrl {
  std::string imgid;
  int version = 0;
  std::string url;           ///< the whole disk, with Range
  std::string manifest_url;  ///< with the same query
  std::string query;         ///< secret as long as it holds
  std::int64_t expires = 0;  ///< unix milliseconds
  std::string digest;        ///< of the manifest
  std::int64_t size_bytes = 0, virtual_size_bytes = 0;
};

/// Where the API fetches a console log or screenshot for the user: GET base_url + target.
struct InstanceFile {
  std::string base_url;  ///< of the cc
  std::string target;    ///< path and signed query
};

/// Why a task is where it is, or is not: the last decision about it, made again.
struct WhyView {
  Decision decision;
  Plan plan;
  std::optional<TaskView> task;  ///< as it is now, if there is one
};

/// A dry run.
struct PlanView {
  std::string imgid, image_name;
  int version = 0;
  PlacementRequest request;
  Policy policy = Policy::image_first;
  int count = 0;
  std::int64_t at = 0;  ///< for when it was asked; 0: now
  Seating seating;
  std::optional<Bottleneck> bottleneck;
  Estimate estimate;
  std::vector<std::string> notes;  ///< what was assumed
};

nlohmann::json to_json(const Session& session);
nlohmann::json to_json(const ImageView& image);
nlohmann::json to_json(const UploadTarget& upload);
nlohmann::json to_json(const ImageCreated& created);
nlohmann::json to_json(const VersionView& version);
nlohmann::json to_json(const TaskView& task);
nlohmann::json to_json(const VmView& vm);
nlohmann::json to_json(const NodeView& node);
nlohmann::json to_json(const StatusView& status);
nlohmann::json to_json(const ClusterView& cluster);
nlohmann::json to_json(const VmType& type);
nlohmann::json to_json(const OsType& type);
nlohmann::json to_json(const SnapshotView& snapshot);
nlohmann::json to_json(const PushView& push);
nlohmann::json to_json(const VersionUrl& url);
nlohmann::json to_json(const WhyView& why);
nlohmann::json to_json(const PlanView& plan);

template <class T>
nlohmann::json to_json(const Page<T>& page) {
  auto items = nlohmann::json::array();
  for (const auto& one : page.items) items.push_back(to_json(one));
  return {{"items", std::move(items)},
          {"next", page.next.empty() ? nlohmann::json() : nlohmann::json(page.next)}};
}

}  // namespace educloud::clc
