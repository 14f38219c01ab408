#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "clc/domain/planner.hpp"
#include "clc/domain/types.hpp"
#include "clc/store/catalogue.hpp"
#include "clc/store/sql.hpp"

namespace educloud::clc::store {

/// The open task of this id, else the latest ended one.
std::optional<Task> find_task(Sql& sql, std::string_view tid);
std::optional<Task> find_task_by_row(Sql& sql, std::int64_t id);
std::optional<Task> open_task(Sql& sql, std::string_view tid);
std::optional<Task> open_task_of_instance(Sql& sql, std::string_view insid);
/// Newest first; before row `before` (0: from the newest). Empty texts: any.
std::vector<Task> list_tasks(Sql& sql, std::int64_t before, int limit, std::string_view owner, bool open_only,
                             std::string_view insid, std::string_view imgid);
std::vector<Task> open_tasks(Sql& sql);
std::vector<Task> open_tasks_of_node(Sql& sql, std::string_view node);
/// Open tasks that make, change or read `imgid`.
std::vector<Task> open_tasks_of_image(Sql& sql, std::string_view imgid);
/// Returns the row id. Errors as Abort: conflict if an open one has the tid or the instance.
std::int64_t add_task(Sql& sql, const Task& task);
/// Everything that changes in a task's life, by task.id.
void update_task(Sql& sql, const Task& task);
/// Open tasks with a command without an answer or news for resend_after_ms, or past their deadline.
std::vector<Task> overdue_tasks(Sql& sql, std::int64_t now_ms);

/// Of open tasks on a node: memory and cpus if they hold capacity, else only their ports (`runs` is false).
/// What the planner must not promise twice. A VM that moves is on both nodes.
std::vector<Reservation> reservations(Sql& sql);

std::optional<Instance> find_instance(Sql& sql, std::string_view insid);
/// Empty owner: all. TMP instances are left out: they are shown as their tasks.
std::vector<Listed<Instance>> list_instances(Sql& sql, std::int64_t after, int limit, std::string_view owner);
std::vector<Instance> instances_of_image(Sql& sql, std::string_view imgid);
void add_instance(Sql& sql, const Instance& instance);
/// Its name, size, version, pins, autostart and folder_protocol.
void update_instance(Sql& sql, const Instance& instance);
void set_instance_deleting(Sql& sql, std::string_view insid);
/// Its database disk lies there from now on.
void set_disk_cluster(Sql& sql, std::string_view insid, std::string_view cluster);
void set_instance_limits(Sql& sql, std::string_view insid, const msg::Limits& limits);
void remove_instance(Sql& sql, std::string_view insid);
void set_display_password(Sql& sql, std::string_view insid, std::string_view password);
std::string display_password(Sql& sql, std::string_view insid);

/// The port of `kind` ("display", "web") this instance has on `node`; else the first free one of the range,
/// now its own. 0: none is free.
int take_port(Sql& sql, std::string_view node, std::string_view kind, std::string_view insid, int first,
              int last);
/// 0: it has none.
int port_of(Sql& sql, std::string_view insid, std::string_view kind);
/// The instance has `port` on `node`, whatever the book says of it and of whoever has that port by the book.
void hold_port(Sql& sql, std::string_view node, std::string_view kind, std::string_view insid, int port);
void free_ports(Sql& sql, std::string_view insid);
void free_port(Sql& sql, std::string_view insid, std::string_view kind);
/// Instances that have ports and no open task.
std::vector<std::string> unowned_ports(Sql& sql);

struct OutboxRow {
  std::int64_t id = 0;
  std::string exchange, routing_key, body, msgid;
  std::int64_t deadline_at = 0;  ///< unix milliseconds; later it is of no use. 0: never
};
void add_outbox(Sql& sql, const OutboxRow& row, std::int64_t now_ms);
std::vector<OutboxRow> outbox_after(Sql& sql, std::int64_t id, int limit);
void remove_outbox(Sql& sql, std::int64_t id);
/// True if a message with that command waits to be confirmed.
bool is_in_outbox(Sql& sql, std::string_view cmdid);
std::int64_t outbox_size(Sql& sql);

/// False if this sender's message was consumed before.
bool consume(Sql& sql, std::string_view sender, std::string_view msgid, std::int64_t now_ms);

}  // namespace educloud::clc::store
