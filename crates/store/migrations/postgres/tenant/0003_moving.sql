-- How a tenant's rows go to another place: whole, and seen to be the same there. All three look at the rows of the
-- transaction's own tenant only, with the rights of whoever calls. tenant_identity says whose a place is and stays.

CREATE FUNCTION export_rows() RETURNS TABLE (name TEXT, contents TEXT) LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
DECLARE
    moved TEXT;
BEGIN
    FOR moved IN SELECT walled FROM walled_tables() AS walled LOOP
        RETURN QUERY EXECUTE format(
            'SELECT %L, CAST(to_jsonb(moved) AS TEXT) FROM %I AS moved WHERE tenant_id = $1', moved, moved)
            USING NULLIF(current_setting('app.tenant', true), '');
    END LOOP;
END
$$;

-- The tables that hold rows of tenants, by name.
CREATE FUNCTION walled_tables() RETURNS SETOF TEXT LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT CAST(relname AS TEXT) FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE relnamespace = CAST(current_schema() AS regnamespace) AND relkind = 'r' AND attname = 'tenant_id'
        AND relname <> 'tenant_identity' ORDER BY relname
$$;

-- Takes in a list of what export_rows gave, as JSON: [[name, contents], …].
CREATE FUNCTION import_rows(given TEXT) RETURNS BIGINT LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    one JSONB;
    total BIGINT := 0;
BEGIN
    SET CONSTRAINTS ALL DEFERRED;
    FOR one IN SELECT jsonb_array_elements(CAST(given AS JSONB)) LOOP
        IF one ->> 0 NOT IN (SELECT walled_tables()) THEN
            RAISE EXCEPTION 'there is no table %', one ->> 0;
        END IF;
        EXECUTE format('INSERT INTO %I SELECT * FROM jsonb_populate_record(CAST(NULL AS %I), $1)', one ->> 0, one ->> 0)
            USING CAST(one ->> 1 AS JSONB);
        total := total + 1;
    END LOOP;
    RETURN total;
END
$$;

-- What is there, table by table: as many rows, and sums over two hashes of each.
CREATE FUNCTION digest_rows() RETURNS TABLE (name TEXT, digest TEXT) LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
DECLARE
    moved TEXT;
BEGIN
    FOR moved IN SELECT walled FROM walled_tables() AS walled LOOP
        RETURN QUERY EXECUTE format(
            'SELECT %L, concat_ws('' '', count(*), sum(CAST(hashtextextended(CAST(to_jsonb(moved) AS TEXT), 0) AS NUMERIC)),
                sum(CAST(hashtextextended(CAST(to_jsonb(moved) AS TEXT), 1) AS NUMERIC)))
            FROM %I AS moved WHERE tenant_id = $1', moved, moved)
            USING NULLIF(current_setting('app.tenant', true), '');
    END LOOP;
END
$$;

DO $$
DECLARE
    one REGPROCEDURE;
BEGIN
    FOREACH one IN ARRAY ARRAY['export_rows()', 'walled_tables()', 'import_rows(text)', 'digest_rows()']::REGPROCEDURE[] LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', one);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', one, current_setting('atelier.app_role'));
    END LOOP;
END
$$;
