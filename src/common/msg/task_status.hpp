#pragma once

#include "common/msg/codec.hpp"

namespace educloud::msg {

/// What became of a task: nc -> cc -> clc, and walrus -> clc. The first nine fields are the
/// predecessor's and always present; the rest are ours.
struct TaskStatus {
  std::string type = "taskstatus";
  std::string phase;  ///< task::Phase as on the wire
  std::string state;  ///< task::State as on the wire
  int progress = 0;   ///< percent of the present state
  std::string tid;
  std::string prompt;    ///< one line for a person: what is being done
  std::string errormsg;  ///< if failed: what failed and what to do
  int failed = 0;
  int done = 0;

  int v = 1;
  std::string msgid;
  std::string cmdid;  ///< the command this answers
  std::string nid;    ///< host name of the node; empty from walrus
  std::string ccid;   ///< host name of the cluster controller that relayed it
  std::int64_t epoch = 0;
  std::int64_t attempt = 0;
  std::int64_t seq = 0;  ///< (epoch, attempt, seq) orders the statuses of a task
  int final = 0;         ///< 1: nothing more will come for `cmdid`
  std::int64_t bytes_done = 0;
  std::int64_t bytes_total = 0;
  std::int64_t bytes_per_s = 0;  ///< over the last seconds
  std::int64_t ts = 0;           ///< unix milliseconds at the sender
  std::int64_t booted_at = 0;    ///< of the node's host, as in its heartbeat; 0: not told
  std::string event;    ///< task::Event that this reports: the wire states alone do not tell them all apart
  std::string receipt;  ///< of a submit or import: what walrus published, signed (transfer/receipt.hpp)
  std::string database_receipt;  ///< the same of the version's database disk
  std::string snapshot;          ///< snapshot/...: the one it is about

  static constexpr auto fields() {
    using T = TaskStatus;
    return std::make_tuple(
        field("type", &T::type, choice("taskstatus")),
        field("phase", &T::phase, choice("preparing|editing|submitting")),
        field("state", &T::state, text(1, 20)), field("progress", &T::progress, range(0, 100)),
        field("tid", &T::tid, text(1, 64)), field("prompt", &T::prompt), field("errormsg", &T::errormsg),
        field("failed", &T::failed, range(0, 1)), field("done", &T::done, range(0, 1)),
        option("v", &T::v, range(1, 1000)), option("msgid", &T::msgid, text(0, 64)),
        option("cmdid", &T::cmdid, text(0, 36)), option("nid", &T::nid, text(0, 40)),
        option("ccid", &T::ccid, text(0, 40)), option("epoch", &T::epoch, range(0, 9.0e15)),
        option("attempt", &T::attempt, range(0, 9.0e15)), option("seq", &T::seq, range(0, 9.0e15)),
        option("final", &T::final, range(0, 1)), option("bytes_done", &T::bytes_done, range(0, 9.0e15)),
        option("bytes_total", &T::bytes_total, range(0, 9.0e15)),
        option("bytes_per_s", &T::bytes_per_s, range(0, 9.0e15)), option("ts", &T::ts, range(0, 9.0e15)),
        option("booted_at", &T::booted_at, range(0, 9.0e15)), option("event", &T::event, text(0, 20)),
        option("receipt", &T::receipt, text(0, 1024)),
        option("database_receipt", &T::database_receipt, text(0, 1024)),
        option("snapshot", &T::snapshot, text(0, 20)));
  }
};

}  // namespace educloud::msg
