// Command command says what it is for.
package main
