#include "integration/bus/fixture.hpp"

namespace educloud::test {
namespace {

std::unique_ptr<TestBroker> the_broker;

/// Two certificate authorities, and a certificate of the first for `localhost`. Returns rabbitmq.conf lines.
std::string make_certificates(const std::filesystem::path& dir, int port) {
  const auto file = [&](const char* name) { return (dir / name).string(); };
  const auto authority = [&](const char* key, const char* certificate) {
    TestBroker::run({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                     "-nodes", "-keyout", file(key), "-out", file(certificate), "-days", "2", "-subj",
                     "/CN=test authority"});
  };
  authority("ca.key", "ca.pem");
  authority("other-ca.key", "other-ca.pem");
  TestBroker::run({"openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                   "-keyout", file("server.key"), "-out", file("server.csr"), "-subj", "/CN=localhost"});
  std::ofstream(file("san.cnf")) << "subjectAltName=DNS:localhost\n";
  TestBroker::run({"openssl", "x509", "-req", "-in", file("server.csr"), "-CA", file("ca.pem"), "-CAkey",
                   file("ca.key"), "-CAcreateserial", "-out", file("server.pem"), "-days", "2", "-extfile",
                   file("san.cnf")});
  return "listeners.ssl.1 = 127.0.0.1:" + std::to_string(port) +
         "\nssl_options.cacertfile = " + file("ca.pem") + "\nssl_options.certfile = " + file("server.pem") +
         "\nssl_options.keyfile = " + file("server.key") + "\nssl_options.verify = verify_none\n";
}

class Environment : public ::testing::Environment {
 public:
  void SetUp() override {
    const int tls_port = free_port();
    const auto config = make_certificates(certificates_.path(), tls_port);
    the_broker = std::make_unique<TestBroker>(
        bus_definitions(), std::vector<TestBroker::User>{{"alice", "^.*$", "^.*$"}, {"bob", "^cmd$", "^$"}},
        config);
    for (const auto* name : {"ca.pem", "other-ca.pem"}) {
      std::filesystem::copy_file(certificates_.path() / name, the_broker->file(name));
    }
    the_broker->write("tls_port", std::to_string(tls_port), 0644);
  }
  void TearDown() override { the_broker.reset(); }

 private:
  educloud::testing::TempDir certificates_;
};

const auto* const kEnvironment = ::testing::AddGlobalTestEnvironment(new Environment);

}  // namespace

TestBroker& broker() {
  return *the_broker;
}

}  // namespace educloud::test
