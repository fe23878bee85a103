# Runs as the user postgres with PostgreSQL's programs on the PATH.
set -eu
dir=/tmp/helios
data=$dir/data
if [ ! -e $dir/ready ]; then
	mkdir -p $dir
	rm -rf $data
	auth=trust
	if [ -n "${HELIOS_PASSWORD:-}" ]; then
		auth=scram-sha-256
		cp /helios/* $dir # a key has to be the server's own
		chmod 600 $dir/*
		printf %s "$HELIOS_PASSWORD" >$dir/password
	fi
	if [ -z "${HELIOS_UPSTREAM:-}" ]; then
		initdb --pgdata $data --username postgres --encoding UTF8 --locale C --auth trust --no-sync \
			--auth-host $auth ${HELIOS_PASSWORD:+--pwfile $dir/password}
		printf 'host all all all trust\nhost replication all all trust\n' >>$data/pg_hba.conf
	else
		pg_basebackup --pgdata $data --dbname "$HELIOS_UPSTREAM" --checkpoint fast --no-sync
		printf "primary_conninfo = '%s'\n" "$(printf %s "$HELIOS_UPSTREAM" | sed "s/'/''/g")" >>$data/postgresql.conf
		touch $data/standby.signal
	fi
	printf "listen_addresses = '*'\nunix_socket_directories = '/tmp'\n%s" "$HELIOS_SETTINGS" >>$data/postgresql.conf
	touch $dir/ready
fi
exec postgres -D $data
