#pragma once

#include <string>

#include "cc/disks/disk_store.hpp"
#include "common/base/clock.hpp"
#include "common/http/message.hpp"

namespace educloud::cc {

/// What a node asks of its database disks. Each wants a grant (transfer/grant.hpp) PUT over
/// "/disks/<insid>/<epoch>" for that node, so that a node cannot raise its own epoch; join, keep and leave
/// one over "/disks/<insid>/<epoch>/move" instead. To be repeated while it is answered 202 {"state":
/// "working", "bytes_done", "bytes_total"} or 503. Below `/disks/{insid}/{epoch}`:
/// - `POST .../open {imgid, version, digest, disk_bytes, source_grant, build_imgid?, mode?, writes?, lost?}`
/// -> 200 {"state":
///   "open", mode, portal, iqn, lun, user, secret}; mode nbd: export for iqn, secret is the user's TLS key.
///   409 if a higher epoch has it. source_grant: GET over the version's path, for the same node
/// - `POST .../join` -> 200 as open: the VM moves to this node, and the one that has the disk keeps it. 409
///   if it is not open, or over nbd
/// - `POST .../keep` -> 200 {"state": "open"}: it is this node's alone. 409 if not joined from this address
/// - `POST .../leave` -> 200 {"state": "left"}: the VM does not come
/// - `POST .../close` -> 200 {"state": "closed"}
/// - `POST .../submit {imgid, version, grant, parent?, if_current?, cmdid}` -> 200 {"state": "submitted",
///   receipt}; 409 while it is open. grant: PUT over the version's path, for the same node
/// Mode copy: open tells {copy, disk_bytes, data_bytes, is_out, left} instead. With writes=1 the node's copy
/// counts as newer from then on: close is refused, and so is (503) another node that is not told of it in
/// `lost`.
/// - `GET .../data?copy&at` -> 200, the next data (at most 1 MiB) from `at` on, with Disk-At, Disk-Bytes and
///   Block-SHA256; Disk-At = Disk-Bytes: there is none. 409 if that copy does not count any more, here and
///   below
/// - `PUT .../data?copy&give&size&data&after&at` with Block-SHA256 -> 200 {"end"}: from where to go on
/// - `POST .../back?copy&give&size&data&after&at` -> 200 {"state": "back" | "again"}
/// - `DELETE` -> 200 {"state": "removed"}; 409 if a higher epoch has it
class DiskRoutes {
 public:
  /// `key`: what grants are signed with. All outlive the router.
  DiskRoutes(DiskStore& store, std::string key, const Clock& clock)
      : store_(store), key_(std::move(key)), clock_(clock) {}
  void add_routes(http::Router& router);

 private:
  /// Of a request that may be answered.
  struct Caller {
    InstanceId instance;
    std::int64_t epoch = 0;
    std::string node;
    std::string address;
  };
  /// `scope`: what the grant's path ends with.
  Result<Caller> check(const http::Request& request, std::string_view scope = {}) const;
  /// Leave of the same node for a version, given in a body.
  Result<> check_version(const Caller& caller, const std::string& method, const std::string& imgid,
                         int version, const std::string& grant) const;
  Result<http::Response> open(const http::Request& request);
  Result<http::Response> join(const http::Request& request);
  Result<http::Response> keep(const http::Request& request);
  Result<http::Response> leave(const http::Request& request);
  Result<http::Response> close(const http::Request& request);
  Result<http::Response> submit(const http::Request& request);
  Result<http::Response> remove(const http::Request& request);
  Result<DiskStore::Holder> holder(const http::Request& request) const;
  static Result<DiskReturns::Block> block_of(const http::Request& request);
  Result<http::Response> read(const http::Request& request);
  Result<http::Response> put(const http::Request& request);
  Result<http::Response> take_back(const http::Request& request);

  DiskStore& store_;
  const std::string key_;
  const Clock& clock_;
};

}  // namespace educloud::cc
