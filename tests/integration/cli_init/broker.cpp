#include "integration/cli_init/broker.hpp"

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <sodium.h>

#include <fstream>

#include "common/http/client.hpp"
#include "common/sys/process.hpp"
#include "support/paths.hpp"

namespace educloud::test {
namespace {

const std::string kScript = test::source_dir() / "scripts/lib/broker";

sys::ProcessResult run(std::vector<std::string> argv) {
  sys::ProcessOptions options;
  options.argv = std::move(argv);
  options.timeout = std::chrono::minutes{3};
  auto result = sys::run(options);
  return result ? *result : sys::ProcessResult{.exit_code = -1, .out = {}, .err = result.error().message};
}

amqp_bytes_t bytes(const std::string& text) {
  return {text.size(), const_cast<char*>(text.data())};
}

}  // namespace

Broker::Broker(std::filesystem::path directory, const std::filesystem::path& definitions)
    : directory_(std::move(directory)) {
  const auto started = run({kScript, "start", directory_, "--definitions", definitions});
  log_ = started.out + started.err;
  if (started.exit_code != 0) return;
  std::ifstream env(directory_ / "env");
  for (std::string line; std::getline(env, line);) {
    if (line.starts_with("PORT=")) port_ = std::stoi(line.substr(5));
    if (line.starts_with("MGMT_PORT=")) management_port_ = std::stoi(line.substr(10));
  }
}

Broker::~Broker() {
  run({kScript, "stop", directory_});
}

nlohmann::json Broker::get_json(const std::string& path, const std::string& user,
                                const std::string& password) const {
  auto url = http::Url::parse("http://127.0.0.1:" + std::to_string(management_port_));
  http::Client client(*url);
  const std::string login = user + ":" + password;
  std::string encoded(sodium_base64_ENCODED_LEN(login.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(encoded.data(), encoded.size(), reinterpret_cast<const unsigned char*>(login.data()),
                    login.size(), sodium_base64_VARIANT_ORIGINAL);
  encoded.resize(encoded.find('\0'));
  http::ClientRequest request;
  request.target = path;
  request.headers["Authorization"] = "Basic " + encoded;
  auto response = client.send(request);
  if (!response) return nullptr;
  auto json = response->json();
  return json ? *json : nlohmann::json();
}

struct Client::Impl {
  amqp_connection_state_t connection = nullptr;
  amqp_channel_t channel = 0;
  bool open = false;

  /// "ok", or the code the server closed the channel with.
  std::string outcome(const amqp_rpc_reply_t& reply) {
    if (reply.reply_type == AMQP_RESPONSE_NORMAL) {
      amqp_channel_close(connection, channel, AMQP_REPLY_SUCCESS);
      return "ok";
    }
    if (reply.reply_type != AMQP_RESPONSE_SERVER_EXCEPTION || reply.reply.id != AMQP_CHANNEL_CLOSE_METHOD)
      return "lost";
    return closed(reply.reply);
  }
  std::string closed(const amqp_method_t& method) {
    const auto* close = static_cast<const amqp_channel_close_t*>(method.decoded);
    const std::string code = std::to_string(close->reply_code);
    amqp_channel_close_ok_t ok{};
    amqp_send_method(connection, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok);
    return code;
  }
  bool next_channel() { return amqp_channel_open(connection, ++channel) != nullptr; }
};

Client::Client(int port, const std::string& user, const std::string& password, const std::string& vhost)
    : impl_(std::make_unique<Impl>()) {
  impl_->connection = amqp_new_connection();
  auto* socket = amqp_tcp_socket_new(impl_->connection);
  if (amqp_socket_open(socket, "127.0.0.1", port) != 0) return;
  const auto reply = amqp_login(impl_->connection, vhost.c_str(), 100, 131072, 0, AMQP_SASL_METHOD_PLAIN,
                                user.c_str(), password.c_str());
  impl_->open = reply.reply_type == AMQP_RESPONSE_NORMAL;
}

Client::~Client() {
  if (impl_->open) amqp_connection_close(impl_->connection, AMQP_REPLY_SUCCESS);
  amqp_destroy_connection(impl_->connection);
}

bool Client::is_open() const {
  return impl_->open;
}

std::string Client::consume(const std::string& queue) {
  if (!impl_->next_channel()) return "lost";
  amqp_basic_consume(impl_->connection, impl_->channel, bytes(queue), amqp_empty_bytes, 0, 0, 0,
                     amqp_empty_table);
  return impl_->outcome(amqp_get_rpc_reply(impl_->connection));
}

std::string Client::declare(const std::string& queue) {
  if (!impl_->next_channel()) return "lost";
  amqp_queue_declare(impl_->connection, impl_->channel, bytes(queue), 0, 0, 0, 0, amqp_empty_table);
  return impl_->outcome(amqp_get_rpc_reply(impl_->connection));
}

std::string Client::publish(const std::string& exchange, const std::string& key, const std::string& user_id) {
  if (!impl_->next_channel()) return "lost";
  amqp_confirm_select(impl_->connection, impl_->channel);
  amqp_basic_properties_t properties{};
  properties._flags = AMQP_BASIC_USER_ID_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG;
  properties.user_id = bytes(user_id);
  properties.delivery_mode = 2;
  amqp_basic_publish(impl_->connection, impl_->channel, bytes(exchange), bytes(key), 0, 0, &properties,
                     bytes("{}"));
  // Either the confirm comes, or the server closes the channel.
  for (int frames = 0; frames < 20; ++frames) {
    amqp_frame_t frame{};
    timeval limit{20, 0};
    if (amqp_simple_wait_frame_noblock(impl_->connection, &frame, &limit) != AMQP_STATUS_OK) return "lost";
    if (frame.frame_type != AMQP_FRAME_METHOD || frame.channel != impl_->channel) continue;
    if (frame.payload.method.id == AMQP_CHANNEL_CLOSE_METHOD) return impl_->closed(frame.payload.method);
    if (frame.payload.method.id != AMQP_BASIC_ACK_METHOD) continue;
    amqp_channel_close(impl_->connection, impl_->channel, AMQP_REPLY_SUCCESS);
    return "ok";
  }
  return "lost";
}

}  // namespace educloud::test
