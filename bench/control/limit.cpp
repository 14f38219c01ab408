#include <sqlite3.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

#include "common/bus/rabbit_bus.hpp"
#include "control/driver.hpp"

// The rows and messages of a desktop's life (three commands, four statuses, each over two exchanges) with
// nothing decided, parsed or checked: what SQLite and RabbitMQ leave of this machine for anybody.
namespace educloud::bench {
namespace {

constexpr std::size_t kCommandBytes = 1500, kStatusBytes = 600;
constexpr std::chrono::minutes kPatience{10};
/// Statuses that answer the first, second and third command of a life.
constexpr int kStatuses[3] = {1, 2, 1};

/// A database whose writes share commits, as any sensible writer would have it.
class Writer {
 public:
  using Done = std::function<void()>;
  explicit Writer(const std::filesystem::path& file) {
    if (::sqlite3_open(file.c_str(), &db_) != SQLITE_OK)
      throw std::runtime_error("cannot open " + file.string());
    exec("PRAGMA journal_mode=WAL");
    exec("PRAGMA synchronous=FULL");
    exec("CREATE TABLE tasks(tid TEXT PRIMARY KEY, body TEXT)");
    exec("CREATE TABLE outbox(id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT)");
    prepare("INSERT OR REPLACE INTO tasks VALUES (?, ?)", put_task_);
    prepare("INSERT INTO outbox(body) VALUES (?)", put_message_);
    prepare("DELETE FROM outbox WHERE id = (SELECT MIN(id) FROM outbox)", drop_message_);
    thread_ = std::jthread([this](std::stop_token stop) { loop(std::move(stop)); });
  }
  ~Writer() {
    thread_.request_stop();
    thread_.join();
    for (auto* one : {put_task_, put_message_, drop_message_}) ::sqlite3_finalize(one);
    ::sqlite3_close(db_);
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  /// The task's row, a message to send or one that was sent; `done` once it is durable.
  void write(std::string tid, std::string task, std::string message, bool sent, Done done) {
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back({std::move(tid), std::move(task), std::move(message), sent, std::move(done)});
    }
    changed_.notify_one();
  }

 private:
  struct Item {
    std::string tid, task, message;
    bool sent;
    Done done;
  };
  void exec(const char* sql) {
    if (::sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK)
      throw std::runtime_error(std::string(sql) + ": " + ::sqlite3_errmsg(db_));
  }
  void prepare(const char* sql, sqlite3_stmt*& out) {
    if (::sqlite3_prepare_v2(db_, sql, -1, &out, nullptr) != SQLITE_OK)
      throw std::runtime_error(std::string(sql) + ": " + ::sqlite3_errmsg(db_));
  }
  static void step(sqlite3_stmt* statement, std::initializer_list<const std::string*> texts) {
    int index = 0;
    for (const auto* text : texts)
      ::sqlite3_bind_text(statement, ++index, text->data(), static_cast<int>(text->size()), SQLITE_STATIC);
    ::sqlite3_step(statement);
    ::sqlite3_reset(statement);
  }
  void loop(std::stop_token stop) {
    std::vector<Item> group;
    while (true) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, stop, [&] { return !queue_.empty(); });
        if (queue_.empty()) return;
        group.swap(queue_);
      }
      exec("BEGIN IMMEDIATE");
      for (const auto& one : group) {
        if (!one.tid.empty()) step(put_task_, {&one.tid, &one.task});
        if (!one.message.empty()) step(put_message_, {&one.message});
        if (one.sent) step(drop_message_, {});
      }
      exec("COMMIT");
      for (const auto& one : group) {
        if (one.done) one.done();
      }
      group.clear();
    }
  }

  sqlite3* db_ = nullptr;
  sqlite3_stmt *put_task_ = nullptr, *put_message_ = nullptr, *drop_message_ = nullptr;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<Item> queue_;
  std::jthread thread_;
};

/// The three roles, each with connections and users of its own.
class Loop {
 public:
  Loop(const std::string& secrets, const std::string& broker, const std::filesystem::path& folder, int lives,
       int nodes)
      : lives_(lives),
        step_(static_cast<std::size_t>(lives)),
        answers_(static_cast<std::size_t>(lives)),
        clc_rows_(folder / "limit-clc.sqlite"),
        node_rows_(folder / "limit-nodes.sqlite") {
    const auto open = [&](const std::string& user) {
      bus::RabbitOptions options;
      options.host = broker.substr(0, broker.find(':'));
      options.port = std::stoi(broker.substr(broker.find(':') + 1));
      options.user = user;
      options.password_file = secrets + "/broker-" + user + ".password";
      options.connection_name = "limit-" + user;
      options.window = 1000;
      return bus::make_rabbit_bus(options);
    };
    clc_ = open("clc");
    clc_->subscribe({"clc_status_queue", 200, [this](bus::Delivery d) { on_clc(std::move(d)); }});
    cc_ = open("cc-cc1");
    cc_->subscribe({"cc_cmd_queue.cc1", 200, [this](bus::Delivery d) { pass(std::move(d), "nc_cmd"); }});
    cc_->subscribe({"cc_status_queue", 200, [this](bus::Delivery d) { pass(std::move(d), "clc_status"); }});
    for (int i = 1; i <= nodes; ++i) {
      names_.push_back("nc" + std::to_string(i));
      auto bus = open("nc-" + names_.back());
      bus->subscribe({"nc_cmd_queue." + names_.back(), 4,
                      [this, node = nodes_.size()](bus::Delivery d) { on_node(std::move(d), node); }});
      nodes_.push_back(std::move(bus));
    }
  }
  ~Loop() {
    for (auto& node : nodes_) node->stop();
    cc_->stop();
    clc_->stop();
  }

  Result<double> run() {
    clc_->start({});
    cc_->start({});
    for (auto& node : nodes_) node->start({});
    const auto ready_by = std::chrono::steady_clock::now() + std::chrono::seconds{60};
    while (!all_ready()) {
      if (std::chrono::steady_clock::now() > ready_by) return fail(ErrorCode::timeout, "no broker");
      std::this_thread::sleep_for(std::chrono::milliseconds{10});
    }
    const auto begun = std::chrono::steady_clock::now();
    for (int life = 0; life < lives_; ++life) send(life);
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kPatience, [&] { return ended_ == lives_; }))
      return fail(ErrorCode::timeout, std::to_string(ended_) + " of " + std::to_string(lives_) + " ended");
    return seconds_between(begun, std::chrono::steady_clock::now());
  }

 private:
  bool all_ready() const {
    return clc_->is_ready() && cc_->is_ready() &&
           std::all_of(nodes_.begin(), nodes_.end(), [](const auto& one) { return one->is_ready(); });
  }
  static std::string body(int life, std::size_t bytes) {
    std::string text = std::to_string(life) + " ";
    text.resize(bytes, 'x');
    return text;
  }
  const std::string& node_of(int life) const {
    return names_[static_cast<std::size_t>(life) % names_.size()];
  }

  /// The next command of that life.
  void send(int life) {
    auto message = body(life, kCommandBytes);
    clc_rows_.write(std::to_string(life), message, message, false, [this, life, message] {
      publish(*clc_, {"cc_cmd", "cc1", message, node_of(life)},
              [this] { clc_rows_.write({}, {}, {}, true, {}); });
    });
  }
  void publish(bus::Bus& bus, bus::Outgoing message, std::function<void()> then) {
    (void)bus.publish(std::move(message), [then = std::move(then)](bus::Outcome outcome) {
      if (outcome == bus::Outcome::confirmed) then();
    });
  }
  void pass(bus::Delivery delivery, const std::string& exchange) {
    const int life = std::stoi(delivery.body);
    std::string key = exchange == "nc_cmd" ? node_of(life) : "taskstatus.nc-" + node_of(life);
    publish(*cc_, {exchange, std::move(key), std::move(delivery.body), {}},
            [settle = delivery.settle] { settle(bus::Verdict::ack); });
  }
  void on_node(bus::Delivery delivery, std::size_t node) {
    const int life = std::stoi(delivery.body);
    node_rows_.write(delivery.body.substr(0, 20), delivery.body, {}, false,
                     [this, life, node, settle = delivery.settle] {
                       settle(bus::Verdict::ack);
                       for (int i = 0; i < kStatuses[step_[static_cast<std::size_t>(life)]]; ++i)
                         tell(life, node);
                     });
  }
  void tell(int life, std::size_t node) {
    auto status = body(life, kStatusBytes);
    node_rows_.write(std::to_string(life), status, {}, false, [this, node, status] {
      publish(*nodes_[node], {"cc_status", "taskstatus.nc-" + names_[node], status, {}}, [] {});
    });
  }
  void on_clc(bus::Delivery delivery) {
    const int life = std::stoi(delivery.body);
    clc_rows_.write(std::to_string(life), delivery.body, {}, false, [this, life, settle = delivery.settle] {
      settle(bus::Verdict::ack);
      auto& step = step_[static_cast<std::size_t>(life)];
      auto& answers = answers_[static_cast<std::size_t>(life)];
      if (++answers < kStatuses[step]) return;
      answers = 0;
      if (++step < 3) return send(life);
      const std::lock_guard lock(mutex_);
      ++ended_;
      changed_.notify_all();
    });
  }

  const int lives_;
  std::vector<std::string> names_;
  std::vector<std::atomic<int>> step_;
  std::vector<int> answers_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int ended_ = 0;
  Writer clc_rows_, node_rows_;
  std::unique_ptr<bus::Bus> clc_, cc_;
  std::vector<std::unique_ptr<bus::Bus>> nodes_;
};

}  // namespace

Result<> limit(const Words& words) {
  const std::filesystem::path folder = words.at(2);
  const int lives = std::stoi(words.at(3));
  Loop loop(words.at(0), words.at(1), folder, lives, std::stoi(words.at(4)));
  auto taken = loop.run();
  if (!taken) return fail(taken.error());
  say({{"per_s", lives / *taken}, {"seconds", *taken}});
  return {};
}

}  // namespace educloud::bench
