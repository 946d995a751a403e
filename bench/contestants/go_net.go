// An echo server in Go's usual manner: a goroutine for each connection, net.Conn's Read and Write.
//
// Run: go build -o go_net go_net.go && GOMAXPROCS=1 ./go_net
package main

import (
	"fmt"
	"net"
)

const readBytes = 65536

func echo(peer net.Conn) {
	defer peer.Close()
	buffer := make([]byte, readBytes)
	for {
		n, err := peer.Read(buffer)
		if err != nil {
			return
		}
		if _, err = peer.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("listening on tcp://%s\n", listener.Addr())
	for {
		peer, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go echo(peer)
	}
}
