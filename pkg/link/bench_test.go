package link

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
)

// cpuTime is what this process has used so far, user and system.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// drain receives n records.
func drain(c *Conn, n int, done chan<- error) {
	for range n {
		rec, err := c.Receive()
		if err != nil {
			done <- err
			return
		}
		rec.Body.Release()
	}
	done <- nil
}

// feed sends n records of one kind in batches.
func feed(c *Conn, n, body, perBatch int, done chan<- error) {
	block := make([]byte, benchBlock)
	batch := make([]wire.Record, 0, perBatch)
	for sent := 0; sent < n; sent += len(batch) {
		batch = batch[:0]
		for len(batch) < min(perBatch, n-sent) {
			rec := wire.Record{Block: block}
			if body > 0 {
				rec.Body = buffer.Get(body).Seg(0, body)
			}
			batch = append(batch, rec)
		}
		if err := c.Send(batch); err != nil {
			done <- err
			return
		}
	}
	done <- nil
}

// benchBlock is the size of a header block with a DATA frame and an ACK, bytes.
const benchBlock = 40

// carry sends b.N records of one kind in batches and reports the rate and what
// both ends together cost.
func carry(b *testing.B, edge, cloud *Conn, body, perBatch int) {
	done := make(chan error, 2)
	start := cpuTime(b)
	b.ResetTimer()
	go drain(cloud, b.N, done)
	go feed(edge, b.N, body, perBatch, done)
	for range 2 {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	used := (cpuTime(b) - start).Seconds()
	size := float64(prefixSize + benchBlock + tagSize + body)
	if body > 0 {
		b.ReportMetric(float64(b.N)*size*8/b.Elapsed().Seconds()/1e9, "Gbit/s")
		b.ReportMetric(used/(float64(b.N)*size/1e9), "CPU-s/GB")
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// overLoopback carries over the loopback interface.
func overLoopback(b *testing.B, transport Transport, body, perBatch int) {
	edge, cloud := startCloud(b, loopback, nil).connect(transport)
	carry(b, edge, cloud, body, perBatch)
}

// overVeth carries over a veth pair with an MTU of 1500 between two namespaces.
func overVeth(b *testing.B, transport Transport, body, perBatch int) {
	n := newTwoUplinks(b)
	n.enter(b, n.cloud)
	c := startCloud(b, ":0", nil)
	n.enter(b, n.edge)
	remote := netip.AddrPortFrom(netip.MustParseAddr("198.18.1.2"), c.listener.Addr().Port())
	edge, _, err := c.dialer(transport, func(o *DialerOptions) { o.Remote = remote }).Dial(b.Context(), sampleHello())
	if err != nil {
		b.Fatal(err)
	}
	cloud := <-c.conns
	defer edge.Close(nil)
	defer cloud.Close(nil)
	carry(b, edge, cloud, body, perBatch)
}

func BenchmarkTCP16K(b *testing.B)     { overLoopback(b, TCP, 16<<10, 8) }
func BenchmarkTCP16KOne(b *testing.B)  { overLoopback(b, TCP, 16<<10, 1) }
func BenchmarkTCP8K(b *testing.B)      { overLoopback(b, TCP, 8<<10, 8) }
func BenchmarkTCPControl(b *testing.B) { overLoopback(b, TCP, 0, 8) }
func BenchmarkQUIC16K(b *testing.B)    { overLoopback(b, QUIC, 16<<10, 8) }
func BenchmarkQUIC8K(b *testing.B)     { overLoopback(b, QUIC, 8<<10, 8) }

func BenchmarkVethTCP16K(b *testing.B)  { overVeth(b, TCP, 16<<10, 8) }
func BenchmarkVethTCP8K(b *testing.B)   { overVeth(b, TCP, 8<<10, 8) }
func BenchmarkVethQUIC16K(b *testing.B) { overVeth(b, QUIC, 16<<10, 8) }

// BenchmarkDial makes connections: TLS, HELLO, WELCOME, both ends.
func BenchmarkDial(b *testing.B) {
	for _, transport := range []Transport{TCP, QUIC} {
		b.Run(string(transport), func(b *testing.B) {
			c := startCloud(b, loopback, nil)
			start := cpuTime(b)
			for b.Loop() {
				edge, _, err := c.dialer(transport, nil).Dial(b.Context(), sampleHello())
				if err != nil {
					b.Fatal(err)
				}
				cloud := <-c.conns
				edge.Close(nil)
				cloud.Close(nil)
				<-c.requests
			}
			b.ReportMetric((cpuTime(b)-start).Seconds()*1e3/float64(b.N), "CPU-ms/op")
		})
	}
}
