package api

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// certificate is a key pair that follows its files, so that a renewed
// certificate needs no restart.
type certificate struct {
	certFile, keyFile string
	log               *zap.Logger

	mu      sync.Mutex
	pair    *tls.Certificate
	stamp   string
	checked time.Time
}

// recheck is how often the files are looked at, at most.
const recheck = time.Second

func tlsListener(inner net.Listener, certFile, keyFile string, log *zap.Logger) (net.Listener, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.load(); err != nil {
		_ = inner.Close()
		return nil, fmt.Errorf("read TANDEM_API_CERT and TANDEM_API_KEY: %w", err)
	}
	return tls.NewListener(inner, &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: c.get,
	}), nil
}

// get gives the certificate of the files, or the last good one while they are
// being replaced.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < recheck {
		return c.pair, nil
	}
	c.checked = time.Now()
	if c.stamp == c.stampNow() {
		return c.pair, nil
	}
	if err := c.load(); err != nil {
		c.log.Warn("certificate not reloaded, the old one serves on", zap.Error(err))
	} else {
		c.log.Info("certificate reloaded", zap.String("file", c.certFile))
	}
	return c.pair, nil
}

func (c *certificate) load() error {
	stamp := c.stampNow()
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	c.stamp = stamp // a broken file is reported once, not at every handshake
	if err != nil {
		return err
	}
	c.pair = &pair
	return nil
}

// stampNow changes when either file does.
func (c *certificate) stampNow() string {
	var stamp strings.Builder
	for _, file := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(file); err == nil {
			fmt.Fprintf(&stamp, "%d %d ", info.ModTime().UnixNano(), info.Size())
		}
	}
	return stamp.String()
}
