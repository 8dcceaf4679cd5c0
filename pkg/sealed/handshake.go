package sealed

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"hawser/pkg/card"
	"hawser/pkg/identity"
	"hawser/pkg/wire"
)

// alpn is the protocol's name in TLS (RFC 7301).
const alpn = "hawser-gateway/1"

// exporter is the label of the secret (RFC 8446 section 7.5).
const exporter = "EXPORTER-hawser gateway v1"

// tlsConfig is that of one handshake. TLS proves that the peer holds the key
// of its certificate; accept says whether it is the right key. Names, chains
// and times mean nothing.
func tlsConfig(own tls.Certificate, accept func(key [32]byte) error) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{own},
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // the key is pinned instead
		VerifyConnection: func(state tls.ConnectionState) error {
			key, err := peerKey(state)
			if err != nil {
				return err
			}
			return accept(key)
		},
		NextProtos:             []string{alpn},
		SessionTicketsDisabled: true, // an association is the ticket
	}
}

func peerKey(state tls.ConnectionState) ([32]byte, error) {
	raw := make([][]byte, len(state.PeerCertificates))
	for i, c := range state.PeerCertificates {
		raw[i] = c.Raw
	}
	return identity.PeerKey(raw)
}

// readMessage reads a whole message, header included.
func readMessage(r io.Reader, kind wire.MessageKind) ([]byte, error) {
	m := make([]byte, wire.HelloHeaderSize, wire.HelloHeaderSize+wire.MaxHelloBody)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, err
	}
	n, err := wire.HelloLength(m, kind)
	if err != nil {
		return nil, err
	}
	m = m[:wire.HelloHeaderSize+n]
	_, err = io.ReadFull(r, m[wire.HelloHeaderSize:])
	return m, err
}

// associate derives the association from TLS and what both have said.
func associate(role card.Role, state tls.ConnectionState, ask, grant []byte, ports []*Port) (*Association, error) {
	h := sha256.New()
	h.Write(ask)
	h.Write(grant)
	secret, err := state.ExportKeyingMaterial(exporter, h.Sum(nil), secretSize)
	if err != nil {
		return nil, fmt.Errorf("gateway keys: %w", err)
	}
	return newAssociation(role, secret, ports)
}

// plain is what an error says without addresses: a port of them differs each time.
func plain(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}
