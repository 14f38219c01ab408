// A disk whose VM moves from node to node.
#include "cc/disks/disk_store.hpp"
#include "common/obs/log.hpp"

namespace educloud::cc {

Result<DiskStore::Answer<DiskStore::Export>> DiskStore::join(const Opening& request) {
  const auto what = "join " + std::to_string(request.epoch) + " " + request.node + " " + request.address;
  auto seen = run(quick_, request.instance, what,
                  [this, request](Job&, const std::stop_token&) { return do_join(request); });
  if (!seen) return fail(seen.error());
  Answer<Export> answer{std::nullopt, seen->progress};
  if (!seen->outcome) return answer;
  auto record = files_.load(request.instance);
  if (!record) return fail(record.error());
  const bool is_ours = *record && (*record)->is_open && (*record)->joining_epoch == request.epoch &&
                       (*record)->joining_address == request.address;
  if (!is_ours) return fail(ErrorCode::unavailable, "the database disk was closed meanwhile; try again");
  answer.done = told(**record);
  return answer;
}

Result<> DiskStore::do_join(const Opening& request) {
  auto loaded = files_.load(request.instance);
  if (!loaded) return fail(loaded.error());
  const auto name = "the database disk of " + request.instance.str();
  if (!*loaded || !(*loaded)->is_open)
    return fail(ErrorCode::conflict, name + " is not open: there is no VM that could move");
  auto& record = **loaded;
  if (request.epoch <= std::max(record.epoch, record.joining_epoch - 1))
    return fail(ErrorCode::conflict, name + " belongs to epoch " + std::to_string(record.epoch));
  if (record.mode != "iscsi")
    return fail(ErrorCode::conflict, name + " is served over " + record.mode + ": its VM cannot move");
  const bool same = record.joining_epoch == request.epoch && record.joining_node == request.node &&
                    record.joining_address == request.address;
  if (record.joining_epoch == request.epoch && record.joining_node != request.node)
    return fail(ErrorCode::conflict,
                "epoch " + std::to_string(request.epoch) + " is at node " + record.joining_node);
  if (!same) {
    record.joining_epoch = request.epoch;
    record.joining_node = request.node;
    record.joining_address = request.address;
    // First for good: a tgtd that is started again lets both in.
    if (auto saved = files_.save(record); !saved) return saved;
  }
  // Not yet again after a restart of ours: it is made for both.
  if (!targets_.is_open(request.instance)) return export_disk(record);
  return targets_.set_initiators(request.instance, record.address, record.joining_address);
}

Result<DiskStore::Answer<DiskStore::Done>> DiskStore::keep(const InstanceId& instance, std::int64_t epoch,
                                                           const std::string& address) {
  auto seen = run(quick_, instance, "keep " + std::to_string(epoch) + " " + address,
                  [=, this](Job&, const std::stop_token&) { return do_keep(instance, epoch, address); });
  if (!seen) return fail(seen.error());
  Answer<Done> answer{std::nullopt, seen->progress};
  if (seen->outcome) answer.done = Done{};
  return answer;
}

Result<> DiskStore::do_keep(const InstanceId& instance, std::int64_t epoch, const std::string& address) {
  auto loaded = files_.load(instance);
  if (!loaded) return fail(loaded.error());
  const bool is_kept = *loaded && (*loaded)->epoch == epoch && (*loaded)->is_open;
  if (!is_kept && (!*loaded || (*loaded)->joining_epoch != epoch || !(*loaded)->is_open)) {
    return fail(ErrorCode::conflict,
                "epoch " + std::to_string(epoch) + " has not joined the database disk of " + instance.str());
  }
  auto& record = **loaded;
  // The grant came by way of the node that is left: it must not have joined in the other one's place.
  if (const auto& joined = is_kept ? record.address : record.joining_address; joined != address) {
    return fail(ErrorCode::conflict, "the database disk of " + instance.str() + " was joined from " + joined +
                                         ", not from " + address);
  }
  if (!is_kept) {
    record.epoch = epoch;
    record.node = std::exchange(record.joining_node, {});
    record.address = std::exchange(record.joining_address, {});
    record.joining_epoch = 0;
    // First for good, then the fence: what is exported after a kill is the new node's alone.
    if (auto saved = files_.save(record); !saved) return saved;
    obs::info("disk.kept", {{"insid", instance.str()}, {"node", record.node}});
  }
  if (!targets_.is_open(instance)) return export_disk(record);
  return targets_.set_initiators(instance, record.address, record.joining_address);
}

Result<DiskStore::Answer<DiskStore::Done>> DiskStore::leave(const InstanceId& instance, std::int64_t epoch) {
  auto seen =
      run(quick_, instance, "leave " + std::to_string(epoch),
          [this, instance, epoch](Job&, const std::stop_token&) { return do_leave(instance, epoch); });
  if (!seen) return fail(seen.error());
  Answer<Done> answer{std::nullopt, seen->progress};
  if (seen->outcome) answer.done = Done{};
  return answer;
}

Result<> DiskStore::do_leave(const InstanceId& instance, std::int64_t epoch) {
  auto loaded = files_.load(instance);
  if (!loaded) return fail(loaded.error());
  if (!*loaded) return {};
  auto& record = **loaded;
  if (record.joining_epoch == epoch) {
    record.joining_epoch = 0;
    record.joining_node = record.joining_address = "";
    if (auto saved = files_.save(record); !saved) return saved;
  }
  // Also if it has left by its record: tgtd may have been told in vain.
  if (!record.is_open || !targets_.is_open(instance)) return {};
  return targets_.set_initiators(instance, record.address, record.joining_address);
}

}  // namespace educloud::cc
