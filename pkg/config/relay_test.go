package config

import (
	"reflect"
	"strings"
	"testing"

	"hawser/pkg/unit"
)

// relayBox is what both relay fixtures say of the machine.
func relayBox(role string) Box {
	metrics, _ := parseMetrics("127.0.0.1:9477")
	return Box{
		Identity: "/srv/" + role + ".key", Namespace: DefaultNamespace, Control: "/srv/relay.sock", Metrics: metrics,
		Workers: 3, Memory: 512 * unit.MiB, Compress: CompressOff,
		Card: Card{Kind: CardPool, Workers: 2, Queue: 32, CPUs: []int{0, 1}},
	}
}

func endpoint(t *testing.T, s string) Endpoint {
	t.Helper()
	e, err := parseEndpoint(s, "")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestRelayFixtures(t *testing.T) {
	edge, err := ParseEdgeRelay("edge-relay.yaml", fixture(t, "edge-relay.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	wantEdge := &EdgeRelay{
		Box:     relayBox("edge"),
		Gateway: Gateway{Address: endpoint(t, "cloud.example.net:7444"), Key: ascending(0), KeepAlive: 45},
		Forward: []Forward{{endpoint(t, "127.0.0.1:8080"), "web"}, {endpoint(t, ":1883"), "mqtt"}},
	}
	if !reflect.DeepEqual(edge, wantEdge) {
		t.Errorf("got  %+v\nwant %+v", edge, wantEdge)
	}
	cloud, err := ParseCloudRelay("cloud-relay.yaml", fixture(t, "cloud-relay.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	wantCloud := &CloudRelay{
		Box: relayBox("cloud"), Listen: endpoint(t, "198.51.100.1:444"),
		Services: []Service{{"web", endpoint(t, "10.0.0.5:80")}, {"mqtt", endpoint(t, "broker.example.net:1883")}},
		Clients:  []RelayClient{{"shop-3", ascending(0), []string{"mqtt"}}, {"shop-4", ascending(32), []string{"web", "mqtt"}}},
	}
	if !reflect.DeepEqual(cloud, wantCloud) {
		t.Errorf("got  %+v\nwant %+v", cloud, wantCloud)
	}
	edge.Scheduler, cloud.Scheduler = Scheduler{OrderStrict, DataFIFO, PathECF}, Scheduler{OrderStrict, DataFIFO, PathECF} // has no meaning here
	for _, path := range []string{unset(reflect.ValueOf(*edge), "EdgeRelay"), unset(reflect.ValueOf(*cloud), "CloudRelay")} {
		if path != "" {
			t.Errorf("the fixture leaves %s at its zero value: every field must be exercised", path)
		}
	}
}

func TestBrokenRelays(t *testing.T) {
	edge, cloud := string(fixture(t, "edge-relay.yaml")), string(fixture(t, "cloud-relay.yaml"))
	for _, c := range []struct{ file, old, new, want string }{
		{edge, "gateway:", "gatewy:", `"gatewy": unknown key`},
		{edge, `, key: "` + keyA + `"`, "", "gateway.key: missing: paste what `hawser-cloud pubkey` prints"},
		{edge, "keep_alive_seconds: 45", "keep_alive_seconds: 20", `gateway.keep_alive_seconds: "20" is not a number from 30 to 7200`},
		{edge, ", service: mqtt", "", "forward[1].service: missing"},
		{edge, `":1883"`, `"127.0.0.1:8080"`, "forward[1].listen: 127.0.0.1:8080 is already that of forward[0]: give each its own"},
		{edge, `":1883"`, `"[::ffff:127.0.0.1]:8080"`, "forward[1].listen: 127.0.0.1:8080 is already that of forward[0]"},
		{edge, `"127.0.0.1:8080"`, `"[::]:1883"`, "forward[1].listen: :1883 is already that of forward[0]"},
		{edge, `":1883"`, `":9477"`, "metrics: 127.0.0.1:9477 is what forward[1].listen takes: give it another port"},
		{edge, `":1883"`, `"localhost:1883"`, `forward[1].listen: "localhost:1883" is not an address of this host: write ":1883" for every address, or addr:port`},
		{edge, `":1883"`, `1883`, `forward[1].listen: "1883" is a port alone: write ":1883" for every address, or addr:port`},
		{edge, "workers: 3", "namespace: x", `"namespace": unknown key`},
		{cloud, `"127.0.0.1:9477"`, `":444"`, "metrics: :444 is what listen takes: give it another port"},
		{cloud, `"10.0.0.5:80"`, `":80"`, `services[0].to: ":80" names no host: write host:port, such as 203.0.113.10:80`},
		{cloud, `"10.0.0.5:80"`, `"0.0.0.0:80"`, `services[0].to: "0.0.0.0:80" is no address to connect to: give the other end's`},
		{cloud, "name: mqtt", "name: web", `services[1].name: "web" is already the name`},
		{cloud, "services: [mqtt]", "services: [ftp]", `clients[0].services[0]: "ftp" is none of this file's services`},
		{cloud, "services: [mqtt]", "services: []", "clients[0].services: names none: list the services that this client may use, or leave the key out for all"},
		{cloud, keyB, keyA, "clients[1].key: is already the key of clients[0]"},
		{cloud, "name: shop-4", "name: shop-3", `clients[1].name: "shop-3" is already the name of clients[0]`},
		{cloud, `, to: "10.0.0.5:80"`, "", "services[0].to: missing"},
	} {
		text := strings.Replace(c.file, c.old, c.new, 1)
		if text == c.file {
			t.Fatalf("%q changes nothing", c.old)
		}
		var err error
		if c.file == edge {
			_, err = ParseEdgeRelay("f", []byte(text))
		} else {
			_, err = ParseCloudRelay("f", []byte(text))
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q -> %q: %v, want one line with %q", c.old, c.new, err, c.want)
		}
	}
}

func TestRelayDefaults(t *testing.T) {
	e, err := ParseEdgeRelay("f", []byte(`{gateway: {address: "192.0.2.1:7444", key: "`+keyA+`"}, forward: [{listen: ":80", service: web}]}`))
	if err != nil || e.Identity != "/etc/hawser/edge.key" || e.Control != "/run/hawser/edge-relay.sock" || e.Memory != DefaultMemory {
		t.Errorf("%+v, %v", e, err)
	}
	c, err := ParseCloudRelay("f", []byte(`{services: [{name: web, to: "10.0.0.5:80"}], clients: [{name: a, key: "`+keyA+`"}]}`))
	if err != nil || c.Identity != "/etc/hawser/cloud.key" || c.Control != "/run/hawser/cloud-relay.sock" || c.Listen.Port != DefaultRelayPort {
		t.Errorf("%+v, %v", c, err)
	}
}
