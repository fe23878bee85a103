package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/network"

	"github.com/heliosdb/helios/internal/pgtest"
)

//nolint:gochecknoinits // the blank import is the registration
func init() { pgtest.Register("docker", provider{}) }

// provider runs servers in the Docker engine that testcontainers-go finds.
type provider struct{}

// Available implements [pgtest.Provider].
func (provider) Available(ctx context.Context) (err error) {
	defer func() {
		if reason := recover(); reason != nil { // how testcontainers-go says that it found no engine
			err = fmt.Errorf("no Docker engine: %v", reason)
		}
	}()
	docker, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return fmt.Errorf("no Docker engine: %w", err)
	}
	return docker.Close()
}

// Fleet implements [pgtest.Provider].
func (provider) Fleet(ctx context.Context) (pgtest.Fleet, error) {
	docker, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return nil, err
	}
	listen, err := listenAddr(ctx)
	if err != nil {
		return nil, errors.Join(err, docker.Close())
	}
	net, err := network.New(ctx)
	if err != nil {
		return nil, errors.Join(err, docker.Close())
	}
	return &fleet{
		docker: docker,
		net:    net,
		listen: listen,
		image:  cmp.Or(os.Getenv("HELIOS_TEST_IMAGE"), "postgres:17"),
	}, nil
}

// listenAddr returns where servers, which take everybody, are reached: nowhere
// but on this machine if that is where the engine runs.
func listenAddr(ctx context.Context) (all netip.Addr, err error) {
	docker, err := testcontainers.NewDockerProvider()
	if err != nil {
		return all, err
	}
	host, err := docker.DaemonHost(ctx)
	if err = errors.Join(err, docker.Close()); err != nil {
		return all, err
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		return netip.MustParseAddr("127.0.0.1"), nil
	}
	return all, nil
}

// fleet is the containers of one cluster on a network of their own, on which
// each is known by its name.
type fleet struct {
	docker *testcontainers.DockerClient
	net    *testcontainers.DockerNetwork
	listen netip.Addr // of the engine's machine; invalid for all it has
	image  string

	mu      sync.Mutex
	servers []*server // guarded by mu
}

// Launch implements [pgtest.Fleet].
func (f *fleet) Launch(ctx context.Context, spec pgtest.ServerSpec) (pgtest.Server, error) {
	port, err := pgtest.TakePort(ctx)
	if err != nil {
		return nil, err
	}
	s := &server{fleet: f, spec: spec, port: port}
	f.mu.Lock()
	f.servers = append(f.servers, s)
	f.mu.Unlock()
	if err := s.create(ctx, spec.Upstream); err != nil {
		return nil, fmt.Errorf("container: %s: %w", spec.Name, err)
	}
	return s, nil
}

// Close implements [pgtest.Fleet].
func (f *fleet) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	ctx := context.Background()
	errs := make([]error, len(f.servers))
	var removing sync.WaitGroup
	for i, s := range f.servers {
		removing.Go(func() {
			errs[i] = s.remove(ctx)
			pgtest.GivePort(s.port)
		})
	}
	removing.Wait()
	f.servers = nil
	return errors.Join(errors.Join(errs...), f.net.Remove(ctx), f.docker.Close())
}
