# Runs as the user postgres with PostgreSQL's programs on the PATH.
set -eu
data=/tmp/helios/data
if [ ! -e /tmp/helios/ready ]; then
	mkdir -p /tmp/helios
	rm -rf $data
	if [ -z "${HELIOS_UPSTREAM:-}" ]; then
		initdb --pgdata $data --username postgres --encoding UTF8 --locale C --auth trust --no-sync
		printf 'host all all all trust\nhost replication all all trust\n' >>$data/pg_hba.conf
	else
		pg_basebackup --pgdata $data --dbname "$HELIOS_UPSTREAM" --checkpoint fast --no-sync
		printf "primary_conninfo = '%s'\n" "$HELIOS_UPSTREAM" >>$data/postgresql.conf
		touch $data/standby.signal
	fi
	printf "listen_addresses = '*'\nunix_socket_directories = '/tmp'\n%s" "$HELIOS_SETTINGS" >>$data/postgresql.conf
	touch /tmp/helios/ready
fi
exec postgres -D $data
