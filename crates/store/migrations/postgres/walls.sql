-- What every migration on PostgreSQL may call. Lives in the session of the migration only (pg_temp) and is run again
-- before each one; the application's role is named by the setting atelier.app_role.
--
-- A new table is made and then given its wall, in the same file:
--     SELECT pg_temp.tenant_table('sources');       rows of one tenant each, visible to that tenant only
--     SELECT pg_temp.control_table('keys');         the same, and visible to the installation itself
--     SELECT pg_temp.operator_table('usage_open');  of the installation only
--     SELECT pg_temp.common_table('key_changes');   of nobody: says nothing about anybody
-- and, after that, what may be done with rows that are there:
--     SELECT pg_temp.append_only('audit');          nothing
--     SELECT pg_temp.immutable('versions');         they may go, with their tenant, but not change

CREATE OR REPLACE FUNCTION pg_temp.build_wall(walled regclass, who text) RETURNS void LANGUAGE plpgsql AS $wall$
DECLARE
    reference record;
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', walled);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', walled);
    EXECUTE format('DROP POLICY IF EXISTS wall ON %s', walled);
    EXECUTE format('CREATE POLICY wall ON %s USING (%s) WITH CHECK (%s)', walled, who, who);
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', walled);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %I', walled, current_setting('atelier.app_role'));
    -- So that a tenant's rows can be brought in or removed in any order, checked at the end.
    FOR reference IN SELECT conname FROM pg_constraint WHERE conrelid = walled AND contype = 'f' LOOP
        EXECUTE format('ALTER TABLE %s ALTER CONSTRAINT %I DEFERRABLE INITIALLY IMMEDIATE', walled, reference.conname);
    END LOOP;
END
$wall$;

CREATE OR REPLACE FUNCTION pg_temp.tenant_table(walled regclass) RETURNS void LANGUAGE sql AS $wall$
    SELECT pg_temp.build_wall(walled, $who$tenant_id = NULLIF(current_setting('app.tenant', true), '')$who$)
$wall$;

CREATE OR REPLACE FUNCTION pg_temp.control_table(walled regclass, tenant_column name DEFAULT 'tenant_id')
RETURNS void LANGUAGE sql AS $wall$
    SELECT pg_temp.build_wall(walled, format(
        $who$%I = NULLIF(current_setting('app.tenant', true), '') OR current_setting('app.scope', true) = 'control'$who$,
        tenant_column))
$wall$;

CREATE OR REPLACE FUNCTION pg_temp.operator_table(walled regclass) RETURNS void LANGUAGE sql AS $wall$
    SELECT pg_temp.build_wall(walled, $who$current_setting('app.scope', true) = 'control'$who$)
$wall$;

CREATE OR REPLACE FUNCTION pg_temp.common_table(walled regclass) RETURNS void LANGUAGE sql AS $wall$
    SELECT pg_temp.build_wall(walled, 'true')
$wall$;

CREATE OR REPLACE FUNCTION pg_temp.append_only(walled regclass) RETURNS void LANGUAGE plpgsql AS $wall$
BEGIN
    EXECUTE format('REVOKE UPDATE, DELETE ON %s FROM %I', walled, current_setting('atelier.app_role'));
    EXECUTE format('CREATE TRIGGER never_change BEFORE UPDATE OR DELETE ON %s
        FOR EACH ROW EXECUTE FUNCTION refuse_change()', walled);
    EXECUTE format('CREATE TRIGGER never_empty BEFORE TRUNCATE ON %s
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', walled);
END
$wall$;

CREATE OR REPLACE FUNCTION pg_temp.immutable(walled regclass) RETURNS void LANGUAGE plpgsql AS $wall$
BEGIN
    EXECUTE format('REVOKE UPDATE ON %s FROM %I', walled, current_setting('atelier.app_role'));
    EXECUTE format('CREATE TRIGGER never_change BEFORE UPDATE ON %s
        FOR EACH ROW EXECUTE FUNCTION refuse_change()', walled);
END
$wall$;

CREATE OR REPLACE FUNCTION pg_temp.make_schema(wanted text) RETURNS void LANGUAGE plpgsql AS $wall$
BEGIN
    EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', wanted);
    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', wanted);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', wanted, current_setting('atelier.app_role'));
END
$wall$;

CREATE OR REPLACE FUNCTION pg_temp.drop_schema(unwanted text) RETURNS void LANGUAGE plpgsql AS $wall$
BEGIN
    EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', unwanted);
END
$wall$;

CREATE OR REPLACE FUNCTION pg_temp.show_history() RETURNS void LANGUAGE plpgsql AS $wall$
BEGIN
    EXECUTE format('GRANT SELECT ON schema_history TO %I', current_setting('atelier.app_role'));
END
$wall$;
