package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"hawser/e2e/lab"
)

// peerFiles writes what the TLS peers read: a certificate with its key, and
// the certificate alone, for each side. Both sides are to know each other, as
// hawser's are: each trusts the other's certificate and no more.
func peerFiles(l *lab.Lab) (map[string]string, error) {
	files := map[string]string{}
	for _, side := range []string{"edge", "cloud"} {
		cert, key, err := selfSigned(side)
		if err != nil {
			return nil, err
		}
		for name, text := range map[string]string{side + ".crt": cert, side + ".pem": cert + key} {
			if files[name], err = l.WriteFile("peers/"+name, text); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

// selfSigned returns an ECDSA P-256 certificate and its key as PEM.
func selfSigned(name string) (cert, key string, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		return "", "", err
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return "", "", err
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", private), nil
}

func block(kind string, der []byte) string {
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}) // to memory: never fails
	return b.String()
}

// suite is the one cipher suite of all: hawser's own.
const suite = "TLS_AES_256_GCM_SHA384"

// stunnelFile is a configuration of one side. TLS sessions are resumed as
// stunnel does by default.
func stunnelFile(client bool, files map[string]string, services []forward) string {
	own, other, verdict := "cloud", "edge", "no"
	if client {
		own, other, verdict = "edge", "cloud", "yes"
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "foreground = yes\nsyslog = no\npid =\ndebug = 3\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n")
	fmt.Fprintf(&b, "sslVersionMin = TLSv1.3\nciphersuites = %s\n", suite)
	for _, s := range services {
		fmt.Fprintf(&b, "[%s]\nclient = %s\ncert = %s\nCAfile = %s\nverifyPeer = yes\naccept = %v\nconnect = %v\n",
			s.name, verdict, files[own+".pem"], files[other+".crt"], s.accept, s.connect)
	}
	return b.String()
}

// haproxyFile is a configuration of one side, with a thread per core and TLS
// sessions resumed, as haproxy does by default.
func haproxyFile(client bool, files map[string]string, services []forward) string {
	own, other := "cloud", "edge"
	if client {
		own, other = "edge", "cloud"
	}
	tls := fmt.Sprintf("ssl crt %s ca-file %s verify required ciphersuites %s ssl-min-ver TLSv1.3", files[own+".pem"], files[other+".crt"], suite)
	var b bytes.Buffer
	fmt.Fprintf(&b, "global\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n")
	for _, s := range services {
		in, out := tls, ""
		if client {
			in, out = "", tls
		}
		fmt.Fprintf(&b, "listen %s\n bind %v %s\n server next %v %s\n", s.name, s.accept, in, s.connect, out)
	}
	return b.String()
}
