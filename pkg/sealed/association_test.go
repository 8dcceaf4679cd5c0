package sealed

import (
	"bytes"
	"errors"
	"testing"

	"hawser/pkg/card"
	"hawser/pkg/wire"
)

// couple returns both ends of an association.
func couple(t testing.TB) (client, gateway *Association) {
	t.Helper()
	secret := bytes.Repeat([]byte{7}, secretSize)
	client, err1 := newAssociation(card.Edge, secret, nil)
	gateway, err2 := newAssociation(card.Cloud, secret, nil)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	client.ID = [16]byte{1, 2, 3}
	gateway.ID = client.ID
	gateway.Services = []string{"web", "mqtt"}
	return client, gateway
}

// A join is accepted once and with every bit as it was sent (PROTOCOL.md 7.4).
func TestJoinIsAuthentic(t *testing.T) {
	client, gateway := couple(t)
	good := client.appendJoin(nil, 9, 1)
	if len(good) != wire.JoinSize {
		t.Fatalf("join of %d bytes", len(good))
	}
	for bit := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		j, err := wire.ParseJoin(bad)
		if err == nil {
			err = gateway.admit(j, bad)
		}
		if err == nil {
			t.Fatalf("accepted with bit %d changed", bit)
		}
	}
	j, _ := wire.ParseJoin(good)
	if err := gateway.admit(j, good); err != nil {
		t.Fatal(err)
	}
	if err := gateway.admit(j, good); !errors.Is(err, errRepeated) {
		t.Errorf("repeated: %v", err)
	}
	beyond := client.appendJoin(nil, 10, 2)
	j, _ = wire.ParseJoin(beyond)
	if err := gateway.admit(j, beyond); err == nil {
		t.Error("a service that was not granted is joined")
	}
	gateway.end()
	late := client.appendJoin(nil, 11, 0)
	j, _ = wire.ParseJoin(late)
	if err := gateway.admit(j, late); !errors.Is(err, errOver) {
		t.Errorf("after the end: %v", err)
	}
}

// An end is good for its flow, direction and place alone (PROTOCOL.md 7.5).
func TestEndIsAuthentic(t *testing.T) {
	client, gateway := couple(t)
	end := client.appendEnd(nil, 9, 1000)
	if len(end) != wire.EndSize || !isEnd(end) {
		t.Fatalf("%x", end)
	}
	if !gateway.checkEnd(end, 9, 1000) {
		t.Error("refused")
	}
	for name, ok := range map[string]bool{
		"earlier":    gateway.checkEnd(end, 9, 999),
		"other flow": gateway.checkEnd(end, 8, 1000),
		"reflected":  client.checkEnd(end, 9, 1000),
	} {
		if ok {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := card.ParseHeader(end); err == nil {
		t.Error("the end's header could be a record's")
	}
}
